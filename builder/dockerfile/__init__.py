"""The Dockerfile language: bytes to typed instructions, with no I/O.

parse.py         bytes → Document: one node an instruction, with its lines
flags.py         the ``--name=value`` words before the arguments
arguments.py     argument shapes: JSON or shell, words, key=value, durations, ports
instructions.py  the instruction types, a frozen dataclass a keyword
interpret.py     node → instruction
mounts.py        ``RUN --mount``
words.py         quoting and variables
expand.py        instruction + environment → instruction without variables
stages.py        global ARGs and stages; names, targets, dependencies
checks.py        build checks: warnings about what is legal but doubtful
excerpt.py       the source lines shown below an error
ignore.py        .dockerignore; glob.py holds its patterns
"""
