"""``cp``: files between the host and a container, by docker's rules of what goes where.

    source ─ pack ─╮                    thread
                   ╰─ unpack ─ target   caller

Paths in a container are a stranger's: a link there leads to where it would lead a process of the
container, found name by name below an open directory. So nothing outside is ever read or
written, whatever the container does meanwhile.

Spec: docker's ``cp`` reference; moby ``pkg/archive/copy.go``.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final, NoReturn

from image.errors import InvalidInput, NotFound, StorageError
from image.value import dataclass
from store.diff import pack_entry
from store.directories import OPEN_DIRECTORY, Directories, Directory
from store.piece_thread import PieceThread
from store.unpack import unpack

_LINK_LIMIT: Final = 40  # as the kernel's own MAXSYMLINKS


@dataclass(frozen=True, slots=True)
class Place:
    """One side of a copy as a user wrote it; on the host without a ``container``."""

    container: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """``CONTAINER:PATH``, or a path of the host, which begins with ``/`` or ``.`` if it has a colon."""
        container, colon, path = text.partition(":")
        if not colon or text.startswith(("/", ".")):
            return cls("", text)
        return cls(container, path)


@dataclass(frozen=True, slots=True)
class Spot:
    """A name in an open directory; ``.`` is that directory. ``status`` is None when nothing is there."""

    directory: int
    name: bytes
    status: os.stat_result | None

    @property
    def is_directory(self) -> bool:
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)


class Tree:
    """Where names are looked up. What it opens is closed with ``held``."""

    def __init__(self, held: ExitStack) -> None:
        self._held = held

    def find(self, path: str, *, follow: bool) -> Spot:
        """What ``path`` leads to; its directory is there. ``follow``: also where the last name is a link.

        Raises NotFound, InvalidInput.
        """
        try:
            return self._find(path, follow=follow)
        except OSError as error:
            if error.errno == errno.ENOENT:
                self.miss(path)
            reason = (error.strerror or str(error)).lower()
            raise InvalidInput(f"cannot copy {self.shown(path)}: {reason}") from error

    def keep(self, fd: int) -> int:
        """The descriptor, which is closed with the tree."""
        self._held.callback(os.close, fd)
        return fd

    def spot(self, directory: int, name: bytes) -> Spot:
        status = None
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return Spot(directory, name, status)

    @abstractmethod
    def absolute(self, path: str) -> str:
        """The path from the root, without ``.``, ``..`` and a slash at its end; ``..`` by its text, as docker does."""

    @abstractmethod
    def shown(self, path: str) -> str:
        """The path for a message."""

    @abstractmethod
    def miss(self, path: str) -> NoReturn:
        """Raises NotFound."""

    @abstractmethod
    def _find(self, path: str, *, follow: bool) -> Spot:
        """Raises OSError."""


class HostTree(Tree):
    """The machine's own files, by the kernel's rules."""

    def absolute(self, path: str) -> str:
        return os.path.abspath(path)

    def shown(self, path: str) -> str:
        return path

    def miss(self, path: str) -> NoReturn:
        raise NotFound(f"{path}: no such file or directory")

    def _find(self, path: str, *, follow: bool) -> Spot:
        above, name = os.path.split(self.absolute(path))
        if follow:
            above, name = os.path.split(os.path.realpath(path))
        directory = self.keep(os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        found = self.spot(directory, os.fsencode(name or "."))
        if follow and found.status is not None and stat.S_ISLNK(found.status.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return found


class ContainerTree(Tree):
    """Below ``root``, an open directory, which no link and no ``..`` leaves."""

    def __init__(self, held: ExitStack, root: int, name: str) -> None:
        super().__init__(held)
        self._directories = held.enter_context(Directories(root, _make_nothing))
        self._name = name

    def absolute(self, path: str) -> str:
        return posixpath.normpath(f"/{path.lstrip('/')}")

    def shown(self, path: str) -> str:
        return f"{path} in container {self._name}"

    def miss(self, path: str) -> NoReturn:
        raise NotFound(f"could not find the file {path} in container {self._name}")

    def _find(self, path: str, *, follow: bool) -> Spot:
        rest = os.fsencode(self.absolute(path))
        for _ in range(_LINK_LIMIT):
            above, _, name = rest.rpartition(b"/")
            if name in (b"", b".", b".."):
                directory = self._directories.at(rest, make=False)
                return self.spot(self.keep(os.dup(directory.fd)), b".")
            directory = self._directories.at(above, make=False)
            found = self.spot(self.keep(os.dup(directory.fd)), name)
            if not follow or found.status is None or not stat.S_ISLNK(found.status.st_mode):
                return found
            target = os.readlink(name, dir_fd=found.directory)
            rest = target if target.startswith(b"/") else b"%b/%b" % (directory.path, target)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _make_nothing(_parent: Directory, name: bytes) -> None:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


@dataclass(frozen=True, slots=True)
class _Origin:
    """What is copied. ``name`` is what it is called inside a directory; ``.`` for the content of one."""

    spot: Spot
    name: bytes


def copy(
    source: Tree, source_path: str, target: Tree, target_path: str, *, follow: bool, owner: tuple[int, int] | None
) -> int:
    """Copy a file, or a directory with all in it: how many bytes of content.

    A directory ``source_path`` goes into an existing directory under its own name, its content
    alone with ``/.`` at the end; what does not exist is made. ``follow`` is for a link at
    ``source_path``; links below stay links. ``owner`` stands for every file's own.

    Raises NotFound; InvalidInput; Conflict where a directory and something else meet;
    StorageError.
    """
    origin = _origin(source, source_path, follow=follow)
    directory, named = _destination(target, target_path, origin)
    outflow = _Outflow(origin.spot, named, owner)
    outflow.start()
    try:
        return unpack(outflow.read, directory, whiteouts="keep", like_by_like=True).size
    finally:
        outflow.stop()


def send(source: Tree, path: str, write: Callable[[bytes], None], *, follow: bool) -> None:
    """Give a file or a directory with all in it to ``write`` as a tar. Raises as ``copy``."""
    origin = _origin(source, path, follow=follow)
    pack_entry(origin.spot.directory, origin.spot.name, write, named=origin.name)


def receive(read: Callable[[int], bytes], target: Tree, path: str) -> None:
    """Unpack the uncompressed tar that ``read(n)`` gives into an existing directory. Raises as ``copy``, InvalidArchive."""
    spot = target.find(path, follow=True)
    if spot.status is None:
        target.miss(path)
    if not spot.is_directory:
        raise InvalidInput(f"cannot unpack an archive into {target.shown(path)}: it is not a directory")
    unpack(read, _inside(target, spot), whiteouts="keep", like_by_like=True)


def _origin(source: Tree, path: str, *, follow: bool) -> _Origin:
    spot = source.find(path, follow=follow or _asserts_directory(path))
    if spot.status is None:
        source.miss(path)
    if stat.S_ISSOCK(spot.status.st_mode):
        raise InvalidInput(f"cannot copy {source.shown(path)}: it is a socket")
    if _asserts_directory(path) and not spot.is_directory:
        raise InvalidInput(f"cannot copy {source.shown(path)}: it is not a directory")
    is_content = posixpath.basename(path.rstrip("/")) in ("", ".")
    return _Origin(spot, b"." if is_content else os.fsencode(posixpath.basename(source.absolute(path)) or "."))


def _destination(target: Tree, path: str, origin: _Origin) -> tuple[int, bytes]:
    """The directory to write into, and what the origin is called there."""
    spot = target.find(path, follow=True)
    if spot.is_directory:
        return _inside(target, spot), origin.name
    if spot.status is None:
        if _asserts_directory(path) and not origin.spot.is_directory:
            raise NotFound(f"cannot copy to {target.shown(path)}: there is no such directory")
    elif origin.spot.is_directory:
        raise InvalidInput(f"cannot copy a directory to {target.shown(path)}: it is no directory")
    elif _asserts_directory(path):
        raise InvalidInput(f"cannot copy to {target.shown(path)}: it is not a directory")
    return spot.directory, spot.name


def _inside(tree: Tree, spot: Spot) -> int:
    try:
        return tree.keep(os.open(spot.name, OPEN_DIRECTORY, dir_fd=spot.directory))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StorageError(f"cannot open directory {os.fsdecode(spot.name)!r}: {reason}") from error


def _asserts_directory(path: str) -> bool:
    return path.endswith(("/", "/.")) or path in (".", "")


class _Outflow(PieceThread):
    """Packs what is copied; the caller reads the tar."""

    def __init__(self, spot: Spot, named: bytes, owner: tuple[int, int] | None) -> None:
        super().__init__("copy")
        self._spot = spot
        self._named = named
        self._owner = owner

    def _make(self) -> None:
        pack_entry(self._spot.directory, self._spot.name, self._give, named=self._named, owner=self._owner)
