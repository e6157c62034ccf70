FROM a
USER --x=y z
