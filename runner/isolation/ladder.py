"""Which isolation a step gets: the strongest that works here, found by doing, with the reason.

    namespaces  a container of docker's kind, or the same in a user namespace of our own
    chroot      files by chroot, /proc and /dev by a supervisor, landlock as a second wall
    emulated    no right at all is needed: a supervisor resolves each path, landlock is the wall

What each guarantees is said wherever it is used: the weaker ones share network, processes'
numbers and limits with their surroundings.
"""

from __future__ import annotations

import errno
import os
from typing import Final, Literal

from image.errors import InvalidInput, NotPermitted
from image.value import dataclass
from runner.runtime.capabilities import mask
from runner.runtime.privileges import Privileges
from store.linux.confine import landlock_abi
from store.linux.foreign import SyscallError

Rung = Literal["namespaces", "chroot", "emulated"]
_WORDS: Final = {
    "auto": "auto", "default": "auto", "": "auto", "strict": "strict", "namespaces": "namespaces", "oci": "namespaces",
    "rootless": "namespaces", "chroot": "chroot", "emulated": "emulated",
}  # fmt: skip
WORDS: Final = ("auto", "default", "namespaces", "oci", "rootless", "chroot", "emulated", "strict")
_CHROOT_NEEDS: Final = (
    "CAP_SYS_CHROOT", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_SETPCAP",
)  # fmt: skip
_GUARANTEES: Final = {
    "namespaces": "own files, processes, network and limits",
    "chroot": "own files; processes of the builder are unreachable; network, loopback services and limits are shared",
    "emulated": "own files, by landlock; processes of the builder are unreachable; "
    "network, loopback services and limits are shared",
}


@dataclass(frozen=True, slots=True)
class Isolation:
    """What was chosen, and why nothing stronger."""

    rung: Rung
    why: str

    @property
    def guarantee(self) -> str:
        return _GUARANTEES[self.rung]

    def __str__(self) -> str:
        return f"isolation: {self.rung} ({self.why}): {self.guarantee}"


def choose(word: str, privileges: Privileges) -> Isolation:
    """The isolation that ``--isolation`` asks for, or the strongest that works.

    Raises InvalidInput for an unknown word; NotPermitted, with what to ask the administrator
    for, when what is asked for can't be had.
    """
    wanted = _WORDS.get(word)
    if wanted is None:
        raise InvalidInput(f"isolation {word!r} is not known: use {', '.join(WORDS)}")
    without = _no_namespaces(privileges)
    if wanted in {"namespaces", "strict"} or (wanted == "auto" and without is None):
        if without is not None:
            raise NotPermitted(f"isolation={word} is not possible: {without}; --isolation=auto uses what there is")
        return Isolation("namespaces", "asked for" if wanted != "auto" else "the strongest works")
    why = "asked for" if wanted != "auto" else without or ""
    no_chroot = _no_chroot(privileges)
    if wanted == "chroot" or (wanted == "auto" and no_chroot is None):
        if no_chroot is not None:
            raise NotPermitted(f"isolation=chroot is not possible: {no_chroot}")
        return Isolation("chroot", why)
    no_emulation = _no_emulation()
    if no_emulation is not None:
        raise NotPermitted(f"isolation=emulated is not possible: {no_emulation}; {why}")
    return Isolation("emulated", why if wanted == "emulated" else f"{why}; {no_chroot}")


def _no_namespaces(privileges: Privileges) -> str | None:
    """Why there are no namespaces; None where they work."""
    if privileges.contains:
        return None
    if privileges.rootless is not None and privileges.rootless.how == "no":
        return f"no namespaces: {privileges.rootless.problem}"
    if privileges.unmountable:
        return f"no namespaces: {privileges.unmountable}"
    return f"no namespaces: missing {', '.join(privileges.missing[:3])}"


def _no_chroot(privileges: Privileges) -> str | None:
    missing = [name for name in _CHROOT_NEEDS if not privileges.capabilities & mask([name])]
    if privileges.uid != 0:
        return "no chroot: not root"
    if missing:
        return f"no chroot: missing {', '.join(missing)}"
    return _no_supervisor()


def _no_supervisor() -> str | None:
    """Why calls of a step can't be answered; None where they can. Tried in a child, which a filter stays with."""
    if os.uname().machine != "x86_64":
        return "the supervisor knows x86-64 alone"
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            code = _try_listener()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if code == 0 else f"no seccomp notification: {os.strerror(code) if 0 < code < 255 else 'unknown'}"


def _try_listener() -> int:
    from runner.isolation import filters
    from store.linux.processes import PR_SET_NO_NEW_PRIVS, prctl
    from store.linux.seccomp import load_seccomp_listener

    try:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        os.close(load_seccomp_listener(filters.program({filters.OPENAT2: filters.NOTIFY})))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _no_emulation() -> str | None:
    if os.geteuid() == 0:
        return "it is for users without rights, and this is root: use --isolation=chroot"
    if landlock_abi() < 2:
        return "no landlock of version 2 (Linux 5.19), which is the wall: ask for a newer kernel, or for CAP_SYS_CHROOT"
    try:
        from store.linux.paths import AT_FDCWD, O_PATH, RESOLVE_IN_ROOT, openat2

        os.close(openat2(AT_FDCWD, b"/", O_PATH, resolve=RESOLVE_IN_ROOT))
    except SyscallError as error:
        return f"no openat2: {error}"
    return _no_supervisor()
