"""Namespaces of a process, and what it may do and is."""

from __future__ import annotations

import sys

from store.linux.foreign import Bytes, Int, Pointer, UnsignedLong, bind, call, failure, u32, u64

# clone(2), unshare(2), setns(2)
CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# prctl(2)
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_SIGCHLD = 17
_HIGHEST_SIGNAL = 64
_FIXED_SIGNALS = (9, 19)  # KILL, STOP
_SIG_SETMASK = 2
_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING = 1
_IOPRIO_WHO_PROCESS = 1

_unshare = bind("unshare", Int)
_setns = bind("setns", Int, Int)
_prctl = bind("prctl", Int, UnsignedLong, UnsignedLong, UnsignedLong, UnsignedLong)
_capset = bind("capset", Bytes, Bytes)
_sethostname = bind("sethostname", Bytes, UnsignedLong)
_setdomainname = bind("setdomainname", Bytes, UnsignedLong)
_personality = bind("personality", UnsignedLong)
_prlimit = bind("prlimit", Int, Int, Bytes, Pointer)
_sigprocmask = bind("sigprocmask", Int, Bytes, Pointer)


# --- namespaces -----------------------------------------------------------------------------


def unshare(flags: int) -> None:
    """unshare(2): new namespaces for the calling thread."""
    if _unshare(flags) < 0:
        raise failure("unshare")


def setns(fd: int, nstype: int) -> None:
    """setns(2): move the calling thread into the namespace behind ``fd``."""
    if _setns(fd, nstype) < 0:
        raise failure("setns")


def clone(flags: int) -> int:
    """Fork with new namespaces: the child's pid, or 0 in the child.

    Only for a process with one thread. No at-fork handler runs, so the child should do
    little and end in exec or ``_exit``.
    """
    return call("clone", flags | _SIGCHLD, 0, 0, 0, 0)


def sethostname(name: bytes) -> None:
    """sethostname(2)."""
    if _sethostname(name, len(name)) < 0:
        raise failure("sethostname")


def setdomainname(name: bytes) -> None:
    """setdomainname(2): the NIS domain name of the uts namespace."""
    if _setdomainname(name, len(name)) < 0:
        raise failure("setdomainname")


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a descriptor of ours for what another process has open."""
    return call("pidfd_getfd", pidfd, fd, 0)


# --- what it may do -------------------------------------------------------------------------


def prctl(option: int, argument: int = 0, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    """prctl(2) with numeric arguments."""
    result: int = _prctl(option, argument, third, fourth, fifth)
    if result < 0:
        raise failure(f"prctl {option}")
    return result


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the capabilities of this thread, each a mask with bit N for capability N."""
    low, high = (b"".join(u32(mask >> shift & 0xFFFFFFFF) for mask in (effective, permitted, inheritable))
                 for shift in (0, 32))  # fmt: skip
    if _capset(u32(_CAPABILITY_VERSION_3) + u32(0), low + high) < 0:
        raise failure("capset")


def prlimit(resource: int, soft: int, hard: int) -> None:
    """Set a resource limit of this process; both values unsigned, 2**64-1 is no limit."""
    if _prlimit(0, resource, u64(soft) + u64(hard), None) < 0:
        raise failure("prlimit")


def join_session_keyring(name: bytes) -> None:
    """Replace the session keyring, so that keys of the caller are not seen."""
    call("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, name)


# --- how it runs ----------------------------------------------------------------------------


def personality(persona: int) -> None:
    """personality(2)."""
    if _personality(persona) < 0:
        raise failure("personality")


def reset_signals() -> None:
    """Default action for every signal and an empty mask: exec passes on ignored and blocked ones."""
    default = bytes(32)  # struct sigaction of the kernel; the C library's refuses to touch 32 and 33
    for signal in range(1, _HIGHEST_SIGNAL + 1):
        if signal not in _FIXED_SIGNALS:
            call("rt_sigaction", signal, default, None, 8)
    if _sigprocmask(_SIG_SETMASK, bytes(128), None) < 0:
        raise failure("sigprocmask")


def sched_setattr(policy: int, flags: int, nice: int, priority: int, times_ns: tuple[int, int, int]) -> None:
    """How this process is scheduled; ``times_ns`` are runtime, deadline and period of SCHED_DEADLINE."""
    structure = (
        u32(48) + u32(policy) + u64(flags) + nice.to_bytes(4, sys.byteorder, signed=True) + u32(priority)
        + b"".join(u64(value) for value in times_ns)
    )  # fmt: skip
    call("sched_setattr", 0, structure, 0)


def ioprio_set(priority: int) -> None:
    """The I/O priority of this process: the class in bits 13 to 15, the level below."""
    call("ioprio_set", _IOPRIO_WHO_PROCESS, 0, priority)
