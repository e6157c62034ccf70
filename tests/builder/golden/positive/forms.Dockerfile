FROM alpine
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN ["a", "b c", "\u00e9\n"]
RUN [ "a" ,"b" ]
RUN []
RUN ["a" "b"]
RUN [a, b]
RUN ['a']
RUN
CMD ["x"]
ENTRYPOINT []
ENTRYPOINT exec top -b
VOLUME ["/a b", "/c"]
VOLUME /d	/e
ADD ["a b", "/c d/"]
HEALTHCHECK NONE
HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=0 --start-interval=1.5s --retries=3 \
  CMD ["curl", "-f"]
HEALTHCHECK  CMD	curl || exit 1
EXPOSE 8080/tcp 53/UDP $P
USER app:app
WORKDIR  /a b/ 
STOPSIGNAL SIGTERM
MAINTAINER Some One <x@y>
