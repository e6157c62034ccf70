FROM a
RUN <<EOF cat
body
 EOF
