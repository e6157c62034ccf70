"""Watchers by the dozen: forks of one interpreter, each in a tenth of the time that starting one takes.

A build has one for its steps. ``child_server`` is the process.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys
from struct import pack
from threading import Lock

from image.errors import NotPermitted
from runner.runtime.cgroup import ControlGroups
from runner.runtime.spawn import Stdio, Watcher, control_pair, start_interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from runner.runtime.spec import DeviceRule

_ANSWER_SIZE = 4


class ForkServer:
    """Safe to use from several threads. A context manager: the process ends with it, or with us.

    Its forks are children of this process, and like processes of ``spawn`` in all but their start.
    """

    def __init__(self) -> None:
        """The process is there when this returns, its interpreter some milliseconds later. Raises NotPermitted."""
        self._lock = Lock()
        self._devices: tuple[DeviceRule, ...] = ()
        self._groups = ControlGroups(())
        self._mounts = _mount_namespace()
        self._requests, theirs = control_pair()
        try:
            self._pid = start_interpreter("child_server", (None, None, None, theirs.fileno()))
        except NotPermitted:
            self._requests.close()
            raise
        finally:
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests.close()
        os.waitpid(self._pid, 0)
        self._groups.remove()

    def limit_devices(self, groups: ControlGroups, rules: tuple[DeviceRule, ...]) -> None:
        """Have every fork born in the v1 group with these rules: to move each would take ten milliseconds.

        The group goes with this object. One that lacks a rule is not used. Raises NotPermitted.
        """
        self._groups = groups
        if groups.device_path in groups.paths and not groups.warnings:
            groups.attach_watcher(self._pid)
            self._devices = rules

    def spawn(self, stdio: Stdio, lease_fd: int) -> Watcher:
        """As ``spawn.spawn``, in the mount namespace of the calling thread. Without ``stdio.extra``.

        Raises NotPermitted.
        """
        ours, theirs = control_pair()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        other = -1
        try:
            given = [null if fd is None else fd for fd in (stdio.stdin, stdio.stdout, stdio.stderr)]
            given += [theirs.fileno(), lease_fd]
            if _mount_namespace() != self._mounts:
                other = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
                given.append(other)
            pid = self._fork(given)
        except OSError as error:
            ours.close()
            why = os.strerror(error.errno or 0).lower()
            raise NotPermitted(f"cannot start the container's process: {why}") from error
        finally:
            theirs.close()
            os.close(null)
            if other >= 0:
                os.close(other)
        return Watcher(ours, pid, devices=self._devices)

    def _fork(self, descriptors: list[int]) -> int:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack(f"{len(descriptors)}i", *descriptors))
        with self._lock:
            self._requests.sendmsg([b"f"], [rights])
            answer = self._requests.recv(_ANSWER_SIZE)
        pid = int.from_bytes(answer, sys.byteorder, signed=True)
        if pid <= 0:
            raise OSError(-pid or errno.ECHILD, "fork")  # no answer: somebody killed it
        return pid


def _mount_namespace() -> int:
    return os.stat("/proc/thread-self/ns/mnt").st_ino
