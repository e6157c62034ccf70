FROM a AS s0
COPY --from=s2 f1 /sub/
FROM a AS s1
COPY --from=s0 f2 /sub/
FROM a AS s2
COPY --from=s1 f2 /sub/
