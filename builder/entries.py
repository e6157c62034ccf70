"""The files of a tree, as values."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from image.value import NamedTuple, dataclass

Stop = Callable[[], None]
"""Called again and again in long work: raises Cancelled once nobody wants its result."""


def never() -> None:
    """A ``Stop`` for work that runs to its end."""


class EntryKind(Enum):
    """The type of a file. Sockets are copied as empty regular files, so they are FILE."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    CHARACTER = "character device"
    BLOCK = "block device"


class FileKey(NamedTuple):
    """What changes when a file's content does: the key under which its digest may be remembered."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


Change = tuple[str, int, int, int, int, int]
"""A path and its ``FileKey``: owner, mode, links and attributes can't change without the ctime."""


class Entry(NamedTuple):
    """One file of a tree, as a walk sees it: without opening it, so without extended attributes.

    A named tuple, because a frozen dataclass of this width takes five times as long to make.
    """

    path: str
    """From the root, without a leading slash; "" is the root itself."""
    kind: EntryKind
    mode: int
    """Permission bits with setuid, setgid and sticky."""
    uid: int
    gid: int
    size: int
    """Bytes of a regular file; 0 for the rest."""
    link: str
    """Where a symlink points."""
    rdev: int
    mtime_ns: int
    nlink: int
    key: FileKey
    socket: bool

    @property
    def hardlinks(self) -> tuple[int, int] | None:
        """The same for all names of one file; None if it has one name."""
        shared = self.nlink > 1 and self.kind is not EntryKind.DIRECTORY
        return (self.key.dev, self.key.ino) if shared else None


@dataclass(frozen=True, slots=True)
class Source:
    """One match of a COPY source.

    ``path`` has its symlinks resolved. ``name`` is what a file is called at the destination.
    ``kept`` is the part of the path that ``--parents`` keeps.
    """

    path: str
    name: str
    kind: EntryKind
    kept: str = ""
