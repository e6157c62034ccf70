"""Capabilities by name and number, and how docker's options choose among them."""

from __future__ import annotations

from image.errors import InvalidInput
from runner.runtime.spec import Capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

DEFAULT: Final = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
)  # fmt: skip

ALL: Final = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
"""Every capability in the order of its number (linux/capability.h)."""


_BITS: Final = {name: 1 << number for number, name in enumerate(ALL)}


def choose(*, add: Iterable[str] = (), drop: Iterable[str] = (), privileged: bool = False) -> tuple[str, ...]:
    """Docker's ``--cap-add`` and ``--cap-drop``: names with or without CAP_, any case, or ALL.

    Raises InvalidInput for an unknown name.
    """
    if privileged:
        return ALL
    added, dropped = [_capability(name) for name in add], [_capability(name) for name in drop]
    base: tuple[str, ...] = ALL if "ALL" in added else () if "ALL" in dropped else DEFAULT
    kept = [name for name in base if name not in dropped]
    return tuple(kept + [name for name in dict.fromkeys(added) if name != "ALL" and name not in kept])


def _capability(name: str) -> str:
    upper = name.upper()
    full = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
    if full != "ALL" and full not in ALL:
        raise InvalidInput(f"invalid capability: {name!r} is not known to this kernel's interface")
    return full


def granted(names: tuple[str, ...]) -> Capabilities:
    """As docker grants them: bounding, permitted and effective, nothing inherited.

    For a user other than root the kernel empties the last two when the uid changes, and so
    does the runtime.
    """
    return Capabilities(bounding=names, effective=names, permitted=names)


def mask(names: Iterable[str]) -> int:
    """A bit for each capability. Raises InvalidInput for an unknown name."""
    bits = 0
    for name in names:
        if name not in _BITS:
            raise InvalidInput(f"unknown capability {name!r}")
        bits |= _BITS[name]
    return bits
