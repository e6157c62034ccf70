"""One more process in a container that runs: the launcher's side of ``exec``.

It joins the namespaces of the container's first process, by a pidfd and only those that are
not ours already, and its control groups; then it is limited as any process of a container.
Until exec nothing in the container can look into it or write to what it executes:

- it is not dumpable, so /proc/PID/{fd,mem,root,exe} stay closed;
- all its descriptors are close-on-exec, and a working directory that leads out of the
  container's root is refused (CVE-2024-21626);
- its program is executed through a read-only mount (CVE-2019-5736, ``spawn``).
"""

from __future__ import annotations

import os

from image.errors import ContainerNotFound
from image.value import replace
from runner.runtime import cgroup, operations
from runner.runtime.operations import Operation
from runner.runtime.plan_process import process_steps
from runner.runtime.privileges import Privileges
from runner.runtime.running import Running
from runner.runtime.spawn import Stdio, Watcher, spawn
from runner.runtime.spec import DockerSeccomp, Process, Seccomp
from store.linux import descriptors, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Final

_NAMESPACES: Final = {
    "user": processes.CLONE_NEWUSER,
    "pid": processes.CLONE_NEWPID,
    "mnt": processes.CLONE_NEWNS,
    "uts": processes.CLONE_NEWUTS,
    "ipc": processes.CLONE_NEWIPC,
    "net": processes.CLONE_NEWNET,
    "cgroup": processes.CLONE_NEWCGROUP,
    "time": processes.CLONE_NEWTIME,
}
_FOR_CHILDREN: Final = processes.CLONE_NEWUSER | processes.CLONE_NEWPID
"""A process joins a pid namespace by being born in it; the user namespace gives the right to."""


def enter(
    container: int,
    process: Process,
    *,
    privileges: Privileges,
    seccomp: Seccomp | DockerSeccomp | None = None,
    container_id: str = "",
    stdio: Stdio = Stdio(),  # a frozen value
    watcher: Watcher | None = None,
    subgroup: str = "",
    detached: bool = False,
    listener: Callable[[int, int], None] | None = None,
    trace: Callable[[Operation], None] | None = None,
) -> Running:
    """Run ``process`` in the container whose first process the pidfd ``container`` holds.

    Returns once its program has been executed. With ``detached`` it outlives this process. A
    ``watcher`` was spawned before, with its own ``stdio`` and ``detached``, and is taken over.
    ``subgroup`` is a group below the container's own; ``listener`` is ``Running.begin``'s.

    Raises ContainerNotFound when the container has ended, and what ``launch`` raises.
    """
    pid = _pid_of(container)
    running = Running(watcher or spawn(stdio, detached=detached))
    try:
        running.hold(cgroup.joined(privileges.cgroups, pid, subgroup))
        steps = tuple(plan_entry(process, seccomp, privileges, pid=pid, flags=_to_join(pid), container_id=container_id,
                                 detached=running.detached, reaped=running.reaped))  # fmt: skip
        for step in steps if trace is not None else ():
            trace(step)  # type: ignore[misc]  # not None, as the line above says

        def still_the_same(_: int) -> None:
            _pid_of(container)  # it held the number until now, so it was the container that was joined

        running.begin(steps, attach=still_the_same, listener=listener)
    except FileNotFoundError as error:
        running.close()
        raise ContainerNotFound(f"container process {pid} has ended") from error
    except BaseException:
        running.close()
        raise
    return running


def plan_entry(
    process: Process,
    seccomp: Seccomp | DockerSeccomp | None,
    privileges: Privileges,
    *,
    pid: int,
    flags: int,
    container_id: str = "",
    detached: bool = False,
    reaped: bool = False,
) -> Iterator[Operation]:
    """The steps; ``flags`` are the namespaces (CLONE_NEW*) of ``pid`` that are not the caller's. Pure."""
    if process.terminal:
        yield operations.forget_stdio()
    yield operations.open_container(pid, flags & _FOR_CHILDREN)
    yield operations.clone(0, detached=detached, reaped=reaped)
    if process.oom_score_adj is not None:
        yield operations.set_oom_score(process.oom_score_adj)  # of the host's /proc: the container's may be anything
    yield operations.hide_process()
    yield operations.await_parent()
    yield operations.enter_container(flags & ~_FOR_CHILDREN)
    yield operations.join_keyring(f"_ses.{container_id}")
    if process.terminal:
        yield operations.make_console(*(process.console_size or (0, 0)), mount=False)
    yield from process_steps(replace(process, init=False), seccomp, privileges, make_directory=False)


def _pid_of(pidfd: int) -> int:
    """The number of a process that lives. Raises ContainerNotFound."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        pid = next((int(line.split()[1]) for line in file if line.startswith("Pid:")), -1)
    if pid <= 0 or descriptors.poll({pidfd: descriptors.POLLIN}, 0):
        raise ContainerNotFound("the container is not running")
    return pid


def _to_join(pid: int) -> int:
    ours, theirs = _identities("self"), _identities(str(pid))
    return sum(flag for name, flag in _NAMESPACES.items() if ours.get(name) != theirs.get(name))


def _identities(process: str) -> Mapping[str, int]:
    found = {}
    for name in _NAMESPACES:
        try:
            found[name] = os.stat(f"/proc/{process}/ns/{name}").st_ino
        except FileNotFoundError:
            if name != "time":  # Linux 5.6
                raise
    return found
