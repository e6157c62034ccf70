"""Words of a mount's ``options`` → flags for the kernel and data for the filesystem.

Spec: runtime-spec 1.2, "Linux mount options".
"""

from __future__ import annotations

from image.value import dataclass
from store import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

_FLAGS: Final = {
    "ro": kernel.MS_RDONLY,
    "nosuid": kernel.MS_NOSUID,
    "nodev": kernel.MS_NODEV,
    "noexec": kernel.MS_NOEXEC,
    "sync": kernel.MS_SYNCHRONOUS,
    "mand": kernel.MS_MANDLOCK,
    "dirsync": kernel.MS_DIRSYNC,
    "nosymfollow": kernel.MS_NOSYMFOLLOW,
    "noatime": kernel.MS_NOATIME,
    "nodiratime": kernel.MS_NODIRATIME,
    "relatime": kernel.MS_RELATIME,
    "strictatime": kernel.MS_STRICTATIME,
    "iversion": kernel.MS_I_VERSION,
    "lazytime": kernel.MS_LAZYTIME,
    "silent": kernel.MS_SILENT,
}
_CLEARED: Final = {
    "rw": kernel.MS_RDONLY,
    "suid": kernel.MS_NOSUID,
    "dev": kernel.MS_NODEV,
    "exec": kernel.MS_NOEXEC,
    "async": kernel.MS_SYNCHRONOUS,
    "nomand": kernel.MS_MANDLOCK,
    "symfollow": kernel.MS_NOSYMFOLLOW,
    "atime": kernel.MS_NOATIME,
    "diratime": kernel.MS_NODIRATIME,
    "norelatime": kernel.MS_RELATIME,
    "nostrictatime": kernel.MS_STRICTATIME,
    "noiversion": kernel.MS_I_VERSION,
    "nolazytime": kernel.MS_LAZYTIME,
    "loud": kernel.MS_SILENT,
    "defaults": 0,
}
_PROPAGATION: Final = {
    "private": kernel.MS_PRIVATE,
    "shared": kernel.MS_SHARED,
    "slave": kernel.MS_SLAVE,
    "unbindable": kernel.MS_UNBINDABLE,
}
_ATTRIBUTES: Final = {
    kernel.MS_RDONLY: kernel.MOUNT_ATTR_RDONLY,
    kernel.MS_NOSUID: kernel.MOUNT_ATTR_NOSUID,
    kernel.MS_NODEV: kernel.MOUNT_ATTR_NODEV,
    kernel.MS_NOEXEC: kernel.MOUNT_ATTR_NOEXEC,
    kernel.MS_NOATIME: kernel.MOUNT_ATTR_NOATIME,
    kernel.MS_STRICTATIME: kernel.MOUNT_ATTR_STRICTATIME,
    kernel.MS_NODIRATIME: kernel.MOUNT_ATTR_NODIRATIME,
    kernel.MS_NOSYMFOLLOW: kernel.MOUNT_ATTR_NOSYMFOLLOW,
}
_RECURSIVE_ATTRIBUTES: Final = frozenset({"rro", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rnodiratime",
    "rstrictatime", "rrelatime", "rnosymfollow"})  # fmt: skip
_RECURSIVE_CLEARED: Final = {
    "rrw": kernel.MOUNT_ATTR_RDONLY,
    "rsuid": kernel.MOUNT_ATTR_NOSUID,
    "rdev": kernel.MOUNT_ATTR_NODEV,
    "rexec": kernel.MOUNT_ATTR_NOEXEC,
    "rdiratime": kernel.MOUNT_ATTR_NODIRATIME,
    "rsymfollow": kernel.MOUNT_ATTR_NOSYMFOLLOW,
    **dict.fromkeys(("ratime", "rnorelatime", "rnostrictatime"), kernel.MOUNT_ATTR_ATIME_MASK),  # the kernel's rule
}


@dataclass(frozen=True, slots=True)
class MountOptions:
    """``flags`` MS_*; ``cleared`` MOUNT_ATTR_*; ``propagation`` MS_* or 0; ``data`` words of the filesystem's own."""

    flags: int = 0
    propagation: int = 0
    recursive: bool = False
    recursive_attributes: bool = False
    data: tuple[str, ...] = ()
    id_mapped: bool = False
    cleared: int = 0

    @property
    def attributes(self) -> int:
        """The flags that a bind mount takes, as MOUNT_ATTR_*."""
        return sum(attribute for flag, attribute in _ATTRIBUTES.items() if self.flags & flag)


def parse_options(words: Iterable[str]) -> MountOptions:
    """Later words win over earlier ones; unknown words are data. Raises InvalidSpec."""
    flags = propagation = cleared = 0
    recursive = recursive_attributes = id_mapped = False
    data = []
    for word in words:
        if word in ("idmap", "ridmap"):
            id_mapped = True
        elif word in ("bind", "rbind"):
            recursive = recursive or word == "rbind"
        elif word.removeprefix("r") in _PROPAGATION:
            propagation = _PROPAGATION[word.removeprefix("r")]
        elif word in _RECURSIVE_ATTRIBUTES:
            flags |= _FLAGS[word[1:]]
            cleared &= ~_ATTRIBUTES.get(_FLAGS[word[1:]], 0)
            recursive_attributes = True
        elif word in _RECURSIVE_CLEARED:
            flags &= ~_CLEARED[word[1:]]
            cleared |= _RECURSIVE_CLEARED[word]
            recursive_attributes = True
        elif word in _FLAGS:
            flags |= _FLAGS[word]
        elif word in _CLEARED:
            flags &= ~_CLEARED[word]
        else:
            data.append(word)
    return MountOptions(flags, propagation, recursive, recursive_attributes, tuple(data), id_mapped, cleared)


def known_words() -> list[str]:
    """Every option that is not passed on to the filesystem."""
    propagation = [prefix + word for word in _PROPAGATION for prefix in ("", "r")]
    return sorted({"bind", "rbind", *_FLAGS, *_CLEARED, *propagation, *_RECURSIVE_ATTRIBUTES, *_RECURSIVE_CLEARED})
