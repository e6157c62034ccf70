"""Who a process is taken for: an index in a resource limit of its own.

The soft RLIMIT_RTTIME of a process without real-time scheduling does nothing. It is inherited
over fork and exec and shared by threads, exactly as credentials are, and the supervisor reads
and sets it from outside: no table of processes could be as right.
"""

from __future__ import annotations

import os
import resource
import stat
from typing import Final

from image.value import dataclass
from runner.owners.records import Records

_RTTIME: Final = 15
_BASE: Final = 1 << 62
"""About 146,000 years of processor time; the index is added."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """As the kernel's. ``program`` tells an exec; ``keeps`` is PR_SET_KEEPCAPS."""

    uids: tuple[int, int, int] = (0, 0, 0)
    gids: tuple[int, int, int] = (0, 0, 0)
    groups: tuple[int, ...] = ()
    program: int = 0
    keeps: bool = False

    @property
    def privileged(self) -> bool:
        """Whether it may become anybody."""
        return self.uids[1] == 0 or self.keeps


ROOT: Final = Credentials()


class CredentialTable:
    """The credentials that any process has had, by index."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._known = [ROOT]
        self._index = {ROOT: 0}

    def of(self, pid: int) -> Credentials:
        """Root's for a process that never changed them."""
        if len(self._known) == 1:
            return ROOT
        soft = resource.prlimit(pid, _RTTIME)[0]
        index = soft - _BASE
        if not 0 <= index < len(self._known):
            return ROOT
        found = self._known[index]
        if (found.uids, found.gids, found.keeps) == (ROOT.uids, ROOT.gids, False):
            return found
        program = _program(pid)
        return found if program in (found.program, 0) else self._after_exec(pid, found, program)

    def set(self, pid: int, credentials: Credentials) -> None:
        self._tag(pid, _with_program(credentials, _program(pid)))

    def _after_exec(self, pid: int, before: Credentials, program: int) -> Credentials:
        """Exec is not asked for, so its effects come with the next question: set-id bits, saved ids, KEEPCAPS."""
        uid, gid = before.uids[1], before.gids[1]
        path = b"%d/exe" % pid
        try:
            mode = os.stat(path).st_mode
        except OSError:
            return before
        if mode & (stat.S_ISUID | stat.S_ISGID):
            record = self._records.read(path, follow=True)
            uid = (record.uid if record else 0) if mode & stat.S_ISUID else uid
            gid = (record.gid if record else 0) if mode & stat.S_ISGID else gid
        after = Credentials(
            (before.uids[0], uid, uid), (before.gids[0], gid, gid), before.groups, program
        )  # fmt: skip
        self._tag(pid, after)
        return after

    def _tag(self, pid: int, credentials: Credentials) -> None:
        index = self._index.get(credentials)
        if index is None:
            index = self._index[credentials] = len(self._known)
            self._known.append(credentials)
        resource.prlimit(pid, _RTTIME, (_BASE + index, resource.RLIM_INFINITY))


def _with_program(credentials: Credentials, program: int) -> Credentials:
    return Credentials(credentials.uids, credentials.gids, credentials.groups, program, credentials.keeps)


def _program(pid: int) -> int:
    """Differs after every exec and not after fork: the auxiliary vector has random addresses. 0 when it is gone."""
    try:
        fd = os.open(b"%d/auxv" % pid, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return hash(os.read(fd, 512))
        finally:
            os.close(fd)
    except OSError:
        return 0
