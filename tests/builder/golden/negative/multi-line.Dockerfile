FROM a

RUN one
COPY --nope \
  # inside
  a \
  b
RUN two
RUN three
RUN four
