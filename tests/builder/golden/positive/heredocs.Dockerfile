FROM alpine
RUN <<EOF
FROM inside
  \ $x "y"
EOF
RUN <<-'END' cat >/a && 3<<OTHER cat
	tabbed
	END
other \
OTHER
RUN <<-X
	#!/usr/bin/env python3
		print(1)
	X
COPY <<a.txt <<"b.txt" ./plain <<-c /dest/
A $V
a.txt
B $V
b.txt
	C
	c
ADD --chmod=600 <<F /f
F
ONBUILD RUN <<EOF
later
EOF
RUN cat<<EOF
RUN echo $((1 << 2)) <<< text
RUN ["cat", "<<EOF"]
RUN echo "<<EOF"
RUN echo it's <<EOF
