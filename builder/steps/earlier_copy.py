"""A copy that is done again because some files changed: the others are links to what it made before.

Beside its layer, a copy from a context writes down of which file, as that was then, each of its
own is the copy. A file is the same when device, inode, size, mtime and ctime are, by which the build
cache goes, too; so owner, mode, times, attributes and bytes are those that a copy would have, and the
layer's digest does not depend on what was linked.

Files of a layer never change, hence may be shared by layers (see also ``moved_copy``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from builder.checksum import is_settled
from builder.entries import Entry

_RECORD: Final = "copied"
_MOST_FILES: Final = 200_000
"""Files that one copy remembers, so that its memory is bounded."""
_NOT_LINKED: Final = {errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOENT, errno.ENOTDIR}


class EarlierCopy:
    """What the same instruction copied the last time, and what it copies now.

    ``diff`` is the descriptor of the earlier layer's files, or -1 when there are none; ``now_ns`` is from
    before the first file was looked at.
    """

    def __init__(self, diff: int, records: frozenset[str], now_ns: int) -> None:
        self._diff = diff
        self._earlier = records
        self._now_ns = now_ns
        self._copied: list[str] = []

    def link(self, entry: Entry, target: str, directory: int, name: str) -> bool:
        """Link the earlier copy of a file as ``name`` in an open directory of the new layer.

        ``target`` is the path of both in their layers. False when the file is to be copied. Raises OSError.
        """
        key = entry.key
        if not is_settled(key, self._now_ns):
            return False  # it may change once more without showing it
        record = f"{key.dev} {key.ino} {key.size} {key.mtime_ns} {key.ctime_ns} {target}"
        if len(self._copied) < _MOST_FILES:
            self._copied.append(record)
        return record in self._earlier and self._linked(target, entry.size, directory, name)

    def _linked(self, target: str, size: int, directory: int, name: str) -> bool:
        try:
            if os.stat(target, dir_fd=self._diff, follow_symlinks=False).st_size != size:
                return False  # the machine lost power before the earlier copy was on disk
            os.link(target, name, src_dir_fd=self._diff, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in _NOT_LINKED:
                return False
            raise
        return True

    def remember(self, layer: Path) -> None:
        """Write down what was copied into the layer directory ``layer``. Raises OSError."""
        if self._copied:
            (layer / _RECORD).write_bytes("\0".join(self._copied).encode("utf-8", "surrogateescape"))


@contextmanager
def earlier_copy(layer: Path | None, now_ns: int) -> Iterator[EarlierCopy]:
    """What is known of the copy in the layer directory ``layer``. Raises OSError."""
    text = b""
    if layer is not None:
        with suppress(FileNotFoundError):
            text = (layer / _RECORD).read_bytes()
    if layer is None or not text:
        yield EarlierCopy(-1, frozenset(), now_ns)
        return
    diff = os.open(layer / "diff", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield EarlierCopy(diff, frozenset(text.decode("utf-8", "surrogateescape").split("\0")), now_ns)
    finally:
        os.close(diff)


def pass_on(earlier: Path, layer: Path) -> None:
    """Let the layer directory ``layer``, whose files are those of ``earlier``, serve the next copy as well."""
    with suppress(FileNotFoundError):
        os.link(earlier / _RECORD, layer / _RECORD)
