"""Owners of files, and users of processes, where one id alone is mapped.

In such a user namespace every chown and setuid to another id fails, and with them most
package managers. A supervisor answers these calls of the container's processes instead
(``runner.runtime.notify``): who owns a file is kept in a record beside it
(``store.owners``), who a process is in an index that its own limits carry
(``credentials``). The layer writer reads the records, so a layer has the owners of
root's build.

It is no security boundary and needs to be none: the user namespace is.

    filter.py        which calls are asked for: a seccomp program, pure
    start.py         the launcher's side: spawns the supervisor
    supervisor.py    the process: joins the container's mounts, answers calls
    tracee.py        memory and paths of the process that calls
    credentials.py   who it is taken for
    records.py       whose a file is
    calls/           one file a group of system calls
"""
