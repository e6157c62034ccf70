ARG a
RUN x
