"""How a process of a container gets its limits, its user and its filter: operations, decided without doing them.

Pure. The same for pid 1, planned by ``plan``, and for a process that joins later, planned by
``enter``.
"""

from __future__ import annotations

import os

from image.errors import InvalidSpec
from runner.runtime import capabilities, operations
from runner.runtime.operations import Operation
from runner.runtime.privileges import Privileges
from runner.runtime.seccomp_default import default_filter
from runner.runtime.spec import DockerSeccomp, NamedUser, Process, Seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

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
    yield from _scheduling(process)
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
    if process.init:
        yield operations.stay_as_init(terminal=process.terminal)
    yield operations.execute(process.args, process.env)


_POLICIES: Final = {
    f"SCHED_{name}": number
    for name, number in {"OTHER": 0, "FIFO": 1, "RR": 2, "BATCH": 3, "ISO": 4, "IDLE": 5, "DEADLINE": 6}.items()
}
_SCHEDULER_FLAGS: Final = {
    f"SCHED_FLAG_{name}": 1 << number
    for number, name in enumerate(
        ("RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN", "UTIL_CLAMP_MAX")
    )
}
_IO_CLASSES: Final = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IO_CLASS_SHIFT: Final = 13


def _scheduling(process: Process) -> Iterator[Operation]:
    wanted = process.scheduler
    if wanted is not None:
        if wanted.policy not in _POLICIES:
            raise InvalidSpec("process.scheduler.policy", f"unknown policy {wanted.policy!r}")
        unknown = next((flag for flag in wanted.flags if flag not in _SCHEDULER_FLAGS), None)
        if unknown is not None:
            raise InvalidSpec("process.scheduler.flags", f"unknown flag {unknown!r}")
        flags = sum(_SCHEDULER_FLAGS[flag] for flag in set(wanted.flags))
        times_ns = (wanted.runtime_ns, wanted.deadline_ns, wanted.period_ns)
        yield operations.set_scheduler(_POLICIES[wanted.policy], flags, wanted.nice, wanted.priority, times_ns)
    if process.io_priority is not None:
        if process.io_priority.io_class not in _IO_CLASSES or process.io_priority.priority > 7:
            raise InvalidSpec("process.ioPriority", "not a class IOPRIO_CLASS_RT, _BE or _IDLE and a level of 0 to 7")
        kind = _IO_CLASSES[process.io_priority.io_class]
        yield operations.set_io_priority(kind << _IO_CLASS_SHIFT | process.io_priority.priority)


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
