"""The process that answers: one beside each container, ended with its last process.

Started by ``start`` with the listener as descriptor 3 and the layer's directory as 4. It joins
the container's mount namespace, so that paths mean what they mean there, and keeps the outer
/proc as its working directory. All modules are loaded before: the container's files are not
ours to import.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from runner.owners import filter as seccomp_filter
from runner.owners.calls import ANSWERED, Call, World, creation, identity, ownership, status
from runner.owners.credentials import CredentialTable
from runner.owners.records import Records
from runner.owners.tracee import Paths
from runner.runtime.notify import Listener, Notification
from store.linux import processes
from store.owners import TABLE, read_table

if TYPE_CHECKING:
    from runner.owners.calls import Handler

LISTENER = 3
LAYER = 4
_MODULES = (status, ownership, identity, creation)
_SAME = {
    "lsetxattr": ownership.setxattr, "fsetxattr": ownership.setxattr, "link": ownership.rename,
    "linkat": ownership.renameat, "renameat2": ownership.renameat,
}  # fmt: skip
_UNHARMED = frozenset({*seccomp_filter.STAT, *seccomp_filter.RENAME, *seccomp_filter.XATTR})
"""Where an error of ours means: let the kernel find its own."""


def main() -> NoReturn:
    """``PID BASE LOWER...`` as arguments: the container's process, and its layers' short names."""
    pid, base, *lowers = sys.argv[2:]
    table: dict[bytes, bytes] = {}
    for lower in reversed(lowers):
        table |= read_table(Path(base, lower, ".."))
    machine = os.uname().machine
    handlers = {abi: handlers_of(abi) for abi in seccomp_filter.FAMILIES.get(machine, ())}
    by_number = {seccomp_filter.ARCHITECTURES[abi]: found for abi, found in handlers.items()}
    journal = os.open(TABLE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600, dir_fd=LAYER)
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    processes.unshare(processes.CLONE_FS)
    processes.setns(namespace, processes.CLONE_NEWNS)
    os.fchdir(proc)
    os.umask(0)
    records = Records(table, b"self/fd/%d/diff" % LAYER, journal)
    with Listener(LISTENER) as listener:
        serve(World(listener, records, CredentialTable(records), Paths()), by_number)
    os._exit(0)


def handlers_of(abi: str) -> dict[int, tuple[Handler, bool]]:
    """The function of each call number, and whether an error of it is left to the kernel."""
    found: dict[int, tuple[Handler, bool]] = {}
    numbers = seccomp_filter.numbers(abi)
    for name in seccomp_filter.ASKED:
        if name in numbers:
            handler = _SAME.get(name) or next(vars(module)[name] for module in _MODULES if name in vars(module))
            found[numbers[name]] = (handler, name in _UNHARMED)
    return found


def serve(world: World, handlers: dict[int, dict[int, tuple[Handler, bool]]]) -> None:
    """Answer until no process of the container is left."""
    while (found := world.listener.receive()) is not None:
        result = _answer(world, handlers, found)
        if result is None:
            world.listener.go_on(found.cookie)
        elif result != ANSWERED:
            world.listener.answer(found.cookie, result)


def _answer(world: World, handlers: dict[int, dict[int, tuple[Handler, bool]]], found: Notification) -> int | None:
    handler, unharmed = handlers[found.arch][found.number]
    try:
        return handler(Call(world, found.cookie, found.pid, found.arguments))
    except OSError as error:
        return None if unharmed else -(error.errno or errno.EIO)
    except Exception as error:  # a fault of ours must not end the container
        with suppress(OSError):
            os.write(2, f"tierce: owners: {type(error).__name__}: {error}\n".encode())
        return None
