FROM alpine
ONBUILD RUN echo \
  hi
onbuild copy --from=x a /b
ONBUILD CMD ["a"]
