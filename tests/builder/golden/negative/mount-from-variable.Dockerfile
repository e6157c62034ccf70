FROM a
RUN --mount=type=bind,from=$x,target=/t true
