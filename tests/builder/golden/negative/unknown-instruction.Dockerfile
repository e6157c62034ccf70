FROM a
RUN x
CPOY a b
