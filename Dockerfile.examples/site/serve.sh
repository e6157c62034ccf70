# The first process of a container ignores signals that it has no handler for, and httpd
# has none: a shell that waits for it makes Ctrl-C and `stop` work at once.
trap exit INT TERM
httpd -f -v -p 8080 -h /var/www &
wait
