"""Words of a mount's ``options`` → flags for the kernel and data for the filesystem.

Spec: runtime-spec 1.2, "Linux mount options".
"""

from __future__ import annotations

from image.value import dataclass
from store.linux import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

_FLAGS: Final = {
    "ro": mounts.MS_RDONLY,
    "nosuid": mounts.MS_NOSUID,
    "nodev": mounts.MS_NODEV,
    "noexec": mounts.MS_NOEXEC,
    "sync": mounts.MS_SYNCHRONOUS,
    "mand": mounts.MS_MANDLOCK,
    "dirsync": mounts.MS_DIRSYNC,
    "nosymfollow": mounts.MS_NOSYMFOLLOW,
    "noatime": mounts.MS_NOATIME,
    "nodiratime": mounts.MS_NODIRATIME,
    "relatime": mounts.MS_RELATIME,
    "strictatime": mounts.MS_STRICTATIME,
    "iversion": mounts.MS_I_VERSION,
    "lazytime": mounts.MS_LAZYTIME,
    "silent": mounts.MS_SILENT,
}
_CLEARED: Final = {
    "rw": mounts.MS_RDONLY,
    "suid": mounts.MS_NOSUID,
    "dev": mounts.MS_NODEV,
    "exec": mounts.MS_NOEXEC,
    "async": mounts.MS_SYNCHRONOUS,
    "nomand": mounts.MS_MANDLOCK,
    "symfollow": mounts.MS_NOSYMFOLLOW,
    "atime": mounts.MS_NOATIME,
    "diratime": mounts.MS_NODIRATIME,
    "norelatime": mounts.MS_RELATIME,
    "nostrictatime": mounts.MS_STRICTATIME,
    "noiversion": mounts.MS_I_VERSION,
    "nolazytime": mounts.MS_LAZYTIME,
    "loud": mounts.MS_SILENT,
    "defaults": 0,
}
_PROPAGATION: Final = {
    "private": mounts.MS_PRIVATE,
    "shared": mounts.MS_SHARED,
    "slave": mounts.MS_SLAVE,
    "unbindable": mounts.MS_UNBINDABLE,
}
_ATTRIBUTES: Final = {
    mounts.MS_RDONLY: mounts.MOUNT_ATTR_RDONLY,
    mounts.MS_NOSUID: mounts.MOUNT_ATTR_NOSUID,
    mounts.MS_NODEV: mounts.MOUNT_ATTR_NODEV,
    mounts.MS_NOEXEC: mounts.MOUNT_ATTR_NOEXEC,
    mounts.MS_NOATIME: mounts.MOUNT_ATTR_NOATIME,
    mounts.MS_STRICTATIME: mounts.MOUNT_ATTR_STRICTATIME,
    mounts.MS_NODIRATIME: mounts.MOUNT_ATTR_NODIRATIME,
    mounts.MS_NOSYMFOLLOW: mounts.MOUNT_ATTR_NOSYMFOLLOW,
}
_RECURSIVE_ATTRIBUTES: Final = frozenset({"rro", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rnodiratime",
    "rstrictatime", "rrelatime", "rnosymfollow"})  # fmt: skip
_RECURSIVE_CLEARED: Final = {
    "rrw": mounts.MOUNT_ATTR_RDONLY,
    "rsuid": mounts.MOUNT_ATTR_NOSUID,
    "rdev": mounts.MOUNT_ATTR_NODEV,
    "rexec": mounts.MOUNT_ATTR_NOEXEC,
    "rdiratime": mounts.MOUNT_ATTR_NODIRATIME,
    "rsymfollow": mounts.MOUNT_ATTR_NOSYMFOLLOW,
    **dict.fromkeys(("ratime", "rnorelatime", "rnostrictatime"), mounts.MOUNT_ATTR_ATIME_MASK),  # the kernel's rule
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
