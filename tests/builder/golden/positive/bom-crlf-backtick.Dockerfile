# escape=`
FROM alpine
RUN dir `
  C:\temp\
COPY <<F /x/
line
F
ENV a=b` c d="e`"f" g=h\
