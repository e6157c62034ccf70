ARG A B=1 C="x y" D=
FROM alpine
ENV a=1 b="two words" c=two\ words d='$a' e= f=a=b
ENV legacy  the rest "of" the line
LABEL "quoted key"="v" k.e-y=v
LABEL single value
ARG X=${A:-"d e"} Y='q'
ENV t="a'b" u='c"d' v=a"b c"d
ENV w=x\
y
