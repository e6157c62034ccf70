FROM a AS s
COPY --from=s x y
