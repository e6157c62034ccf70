"""How a process of a container gets its limits, its user and its filter: operations, decided without doing them.

Pure. The same for pid 1, planned by ``plan``, and for a process that joins later, planned by
``enter``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from image.errors import InvalidSpec
from runner.runtime import capabilities, operations
from runner.runtime.operations import Operation
from runner.runtime.privileges import Privileges
from runner.runtime.seccomp_default import default_filter
from runner.runtime.spec import DockerSeccomp, NamedUser, Process, Seccomp

_RLIMITS: Final = {
    f"RLIMIT_{name}": number
    for number, name in enumerate(
        ("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
         "MSGQUEUE", "NICE", "RTPRIO", "RTTIME")
    )
}  # fmt: skip
_DEFAULT_UMASK: Final = 0o022


def process_steps(
    process: Process,
    seccomp: Seccomp | DockerSeccomp | None,
    privileges: Privileges,
    *,
    make_directory: bool,
    before_exec: tuple[Operation, ...] = (),
) -> Iterator[Operation]:
    """From limits to exec, inside the container. Raises InvalidSpec.

    ``before_exec`` come once the program was found and everything else is done.
    """
    for limit in process.rlimits:
        if limit.type not in _RLIMITS:
            raise InvalidSpec("process.rlimits", f"unknown resource limit {limit.type!r}")
        yield operations.set_rlimit(limit.type, _RLIMITS[limit.type], limit.soft, limit.hard, required=limit.required)
    user = process.user
    umask = _DEFAULT_UMASK
    if isinstance(user, NamedUser):
        yield operations.find_user(user.text, user.groups)
    else:
        umask = _DEFAULT_UMASK if user.umask is None else user.umask
        yield operations.use_user(user.uid, user.gid, user.additional_gids)
    yield operations.start_session(umask, terminal=process.terminal)
    yield operations.enter_directory(process.cwd, make=make_directory)
    filters = _seccomp(process, seccomp, privileges)
    if process.no_new_privileges:
        yield operations.no_new_privileges()
    else:
        yield from filters  # needs CAP_SYS_ADMIN, which the next step takes away
    sets = process.capabilities
    yield operations.drop_privileges(
        *(
            capabilities.mask(names)
            for names in (sets.bounding, sets.effective, sets.permitted, sets.inheritable, sets.ambient)
        )
    )
    if process.no_new_privileges:
        yield from filters  # as late as can be, so that the filter need not allow the steps above
    if before_exec:
        yield operations.check_program(process.args[0], process.env)
        yield from before_exec
    yield operations.execute(process.args, process.env)


def _seccomp(process: Process, seccomp: Seccomp | DockerSeccomp | None, privileges: Privileges) -> Iterator[Operation]:
    if seccomp is None or (isinstance(seccomp, DockerSeccomp) and not privileges.seccomp):
        return
    machine = os.uname().machine
    bounding = process.capabilities.bounding
    if isinstance(seccomp, DockerSeccomp) and set(bounding) == set(capabilities.DEFAULT):
        shipped = default_filter(machine)
        if shipped is not None:
            yield operations.load_seccomp(shipped)
            return
    from runner.runtime.seccomp import compile_filter, docker_rules, load_flags, notifies

    rules = docker_rules(bounding, machine) if isinstance(seccomp, DockerSeccomp) else seccomp
    if notifies(rules) and not rules.listener_path:
        raise InvalidSpec("linux.seccomp", "SCMP_ACT_NOTIFY needs a listenerPath")
    yield operations.load_seccomp(compile_filter(rules, machine), load_flags(rules), listener=notifies(rules))
