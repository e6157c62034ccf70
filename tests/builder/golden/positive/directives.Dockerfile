#syntax=docker/dockerfile:1
#  CHECK = skip=all;error=true
# Escape=\

# escape=`
FROM alpine
RUN a \
  b
