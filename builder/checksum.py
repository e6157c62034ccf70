"""Content checksums: what COPY, ADD and bind mounts contribute to a cache key.

Two trees with the same checksum are the same to a build. Times do not count, nor does the
way to the tree; owner, mode, type, links, devices, extended attributes and bytes do.

Spec: dockerfile.md 4, "Content checksum".
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

from builder.descent import Descent, kept_xattrs
from builder.entries import Change, Entry, EntryKind, FileKey, Stop, never
from builder.tree import Tree
from image.digest import Digest
from image.errors import Cancelled
from image.value import Protocol

_BLOCK = 1024 * 1024
_BATCH = 64
_ALONE = 4 * _BATCH
"""Files below which another thread costs more than it brings."""
_SETTLED_NS = 50_000_000
_COARSE_NS = 2_000_000_000


class ChecksumCache(Protocol):
    """Remembers the digests of files between builds."""

    def get_many(self, keys: Sequence[FileKey]) -> Mapping[FileKey, bytes]:
        """The digests known, of any of ``keys``."""

    def put_many(self, digests: Mapping[FileKey, bytes]) -> None:
        """Remember these."""


def fingerprint(changes: Iterable[Change]) -> str:
    """One word for the state of a tree, from metadata alone; the same whatever the order of ``changes``."""
    import marshal

    return Digest.of(marshal.dumps(sorted(changes), 2)).encoded


def settled(changes: Iterable[Change], now_ns: int) -> bool:
    """Whether any later change of these files is bound to show in their fingerprint."""
    return all(is_settled(FileKey(*change[1:]), now_ns) for change in changes)


def content_checksum(
    entries: Iterable[Entry], digests: Mapping[FileKey, bytes], root: str = "", *, with_top: bool = True
) -> Digest:
    """The checksum of walked entries, their paths taken relative to ``root``.

    ``digests`` has what only opening a file tells (see ``file_digests``). Without
    ``with_top`` the directory ``root`` itself does not count, only what is in it: COPY
    merges a directory's contents and ignores its metadata. Hardlinks count as files.
    """
    from hashlib import sha256  # a build of which nothing changed looks at no content

    total = sha256()
    skip = len(root) + 1 if root else 0
    for entry in entries:
        name = entry.path[skip:]
        if name or with_top:
            total.update(_record(entry, name, digests))
    return Digest(f"sha256:{total.hexdigest()}")


def _record(entry: Entry, name: str, digests: Mapping[FileKey, bytes]) -> bytes:
    """Everything that counts about one file. NUL can't occur in a name, so it separates."""
    head = f"{name}\0{entry.kind.value}\0{entry.mode:o}\0{entry.uid}\0{entry.gid}\0{entry.size}\0{entry.rdev}\0{entry.link}\0"
    record = head.encode("utf-8", "surrogateescape")
    if entry.kind is EntryKind.FILE and not entry.socket:
        record += digests[entry.key]
    elif entry.kind is EntryKind.DIRECTORY:
        record += digests.get(entry.key, b"")
    return record + b"\0\0"


def file_digests(
    tree: Tree,
    entries: Iterable[Entry],
    cache: ChecksumCache | None = None,
    *,
    now_ns: int,
    threads: int = 2,
    stop: Stop = never,
) -> dict[FileKey, bytes]:
    """What only opening a file tells: a digest of its bytes and extended attributes.

    One for every regular file, each read at most once, and for every directory that has
    attributes. ``cache`` is asked about files first and told afterwards, except of those
    that changed so shortly before ``now_ns`` (the clock's time) that another change could
    leave their times as they are. Raises OSError if a file can't be read, and what ``stop`` does.
    """
    files: dict[FileKey, str] = {}
    directories: dict[FileKey, str] = {}
    for entry in entries:
        if entry.kind is EntryKind.FILE and not entry.socket:
            files[entry.key] = entry.path
        elif entry.kind is EntryKind.DIRECTORY:
            directories[entry.key] = entry.path
    digests = dict(cache.get_many(list(files))) if cache is not None and files else {}
    missing = [(key, path) for key, path in files.items() if key not in digests]
    if missing:
        fresh, unchanged = _hash_all(tree, missing, threads, stop)
        digests.update(fresh)
        if cache is not None:
            cache.put_many({key: fresh[key] for key in unchanged if is_settled(key, now_ns)})
    digests.update(_directory_digests(tree, directories))
    return digests


def _directory_digests(tree: Tree, directories: Mapping[FileKey, str]) -> dict[FileKey, bytes]:
    digests: dict[FileKey, bytes] = {}
    with tree.descent() as descent:
        for key, path in directories.items():
            attributes = kept_xattrs(descent.directory(path))
            if attributes:
                digests[key] = _with_attributes(b"", attributes)
    return digests


def _with_attributes(digest: bytes, attributes: Iterable[tuple[str, bytes]]) -> bytes:
    from hashlib import sha256

    total = sha256(digest)
    for name, value in attributes:
        total.update(b"%s\0%d\0%s" % (os.fsencode(name), len(value), value))
    return total.digest()


def is_settled(key: FileKey, now_ns: int) -> bool:
    """Whether a later change is bound to show in the file's times.

    A kernel's clock for files ticks every few milliseconds; some file systems keep whole
    seconds only, which shows as times without a fraction.
    """
    coarse = key.ctime_ns % 1_000_000_000 == 0
    return key.ctime_ns + (_COARSE_NS if coarse else _SETTLED_NS) < now_ns


class _Work:
    """Files to hash, handed out in batches so that threads finish together."""

    def __init__(self, files: Sequence[tuple[FileKey, str]], stop: Stop) -> None:
        self._files = files
        self._stop = stop
        self._next = 0
        self._lock = threading.Lock()
        self.digests: dict[FileKey, bytes] = {}
        self.unchanged: list[FileKey] = []
        self.error: BaseException | None = None

    def _batches(self) -> Iterator[Sequence[tuple[FileKey, str]]]:
        while self.error is None:
            with self._lock:
                start, self._next = self._next, self._next + _BATCH
            if start >= len(self._files):
                return
            yield self._files[start : start + _BATCH]

    def run(self, tree: Tree) -> None:
        try:
            with tree.descent() as descent:
                for batch in self._batches():
                    self._go_on()
                    for key, path in batch:
                        self.digests[key], unchanged = _hash_file(descent, key, path, self._go_on)
                        if unchanged:
                            self.unchanged.append(key)
        except BaseException as error:  # carried to the caller
            self.error = self.error or error

    def _go_on(self) -> None:
        """Between batches and within a large file: given up when another thread failed, or was interrupted."""
        self._stop()
        if self.error is not None:
            raise Cancelled("hashing was given up")


def _hash_all(
    tree: Tree, files: Sequence[tuple[FileKey, str]], threads: int, stop: Stop
) -> tuple[dict[FileKey, bytes], Sequence[FileKey]]:
    """Digests, and the keys of those files that did not change while they were read."""
    work = _Work(files, stop)
    size = sum(key.size for key, _ in files)
    helpers = threads - 1 if len(files) > _ALONE or (len(files) > 1 and size > 8 * _BLOCK) else 0
    others = [threading.Thread(target=work.run, args=(tree,), name="hash") for _ in range(helpers)]
    for other in others:
        other.start()
    work.run(tree)
    for other in others:
        other.join()
    if work.error is not None:
        raise work.error
    return work.digests, work.unchanged


def _hash_file(descent: Descent, key: FileKey, path: str, go_on: Stop) -> tuple[bytes, bool]:
    from hashlib import sha256

    fd = descent.open(path)
    try:
        digest = sha256()
        wanted = min(_BLOCK, key.size + 1)
        while block := os.read(fd, wanted):
            digest.update(block)
            if len(block) < wanted:
                break  # it met the end
            go_on()
        attributes = kept_xattrs(fd)
        status = os.fstat(fd)
    finally:
        os.close(fd)
    now = FileKey(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    plain = digest.digest()
    return _with_attributes(plain, attributes) if attributes else plain, now == key
