ARG BUILDPLATFORM
FROM --platform=$BUILDPLATFORM golang:1 AS Build.Er-1
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=t --network=none --security=insecure --device=vendor/c=d make
RUN --mount=type=bind,"target=/a,b",rw --mount='type=tmpfs,target=/x y' true
RUN -- --not-a-flag
COPY --from=0 --chown=1:2 --chmod=u+x --link --parents=FALSE --exclude=*.md --exclude=!a.md a b /c/
ADD --keep-git-dir --unpack=false --checksum=sha256:00 https://example.com/a.tgz /
