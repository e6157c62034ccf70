"""Layer blobs to directories and back, each in one pass and with one extra thread.

    unpack_blob   blob ─ digest ─ inflate ─ diff_id ─╮                   thread
                                                     ╰─ unpack           caller
    pack_blob     tree ─ pack ─ diff_id ─╮                               caller
                                         ╰─ compress ─ digest ─ write    thread

Hashing and compressing let go of the interpreter lock, so both sides run at once. What is
between them is a few pieces of at most about a MiB each, whatever the layer's size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Final

from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.errors import DigestMismatch, InvalidArchive, SizeMismatch, StorageError, VerificationError
from image.value import dataclass
from store.compression import Compressor, compressor, decompressor
from store.diff import Packed, pack
from store.piece_thread import QUEUE_SIZE, PieceThread
from store.room import Room
from store.unpack import Unpacked, Whiteouts, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression

_READ_SIZE: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class PackedBlob:
    """A layer as it was written. ``size`` is the blob's, ``unpacked_size`` its files' content, in bytes."""

    diff_id: DiffID
    digest: Digest
    size: int
    entries: int
    unpacked_size: int


def unpack_blob(
    read: Callable[[int], bytes],
    descriptor: Descriptor,
    compression: Compression,
    target: Path,
    *,
    whiteouts: Whiteouts = "overlay",
    room: Room | None = None,
) -> tuple[DiffID, Unpacked]:
    """Verify, inflate and unpack one layer blob into ``target``, which should be empty.

    ``read(n)`` gives up to n bytes of the blob, ``b""`` at its end, and is called in another thread;
    never for more than ``descriptor.size`` and one byte. ``room`` bounds what is written. Content is unpacked before it is
    known to be right, so ``target`` is to be discarded when this raises. The caller compares the
    DiffID with the image's config.

    Raises DigestMismatch or SizeMismatch for a blob that is not ``descriptor``'s, even if that also
    made it unreadable; else as ``unpack``, InvalidArchive for a damaged compressed stream, and
    what ``read`` raises (StorageError in place of an OSError).
    """
    inflow = _Inflow(read, descriptor, compression)
    inflow.start()
    try:
        content = room.counted(inflow.read, f"unpacking layer {descriptor.digest}") if room else inflow.read
        unpacked = unpack(content, target, whiteouts=whiteouts)
        inflow.finish()
    except InvalidArchive as error:
        try:
            inflow.finish()
        except VerificationError as cause:
            raise cause from error
        except InvalidArchive:
            pass
        raise
    finally:
        inflow.stop()
    return inflow.diff_id(), unpacked


def pack_blob(
    directory: Path | int,
    write: Callable[[bytes], None],
    compression: Compression,
    *,
    level: int | None = None,
    clamp_s: int | None = None,
    whiteouts: bool = True,
    without: Collection[bytes] = (),
) -> PackedBlob:
    """Pack the upper directory ``directory``, a path or an open descriptor, and ``write`` the compressed blob, piece by piece.

    ``write`` is called in another thread. The same tree, compression, level and clamp give the
    same digest; with ``clamp_s``, which is for images that are to be the same anywhere, on every processor. See ``pack`` for ``clamp_s``, ``whiteouts``, ``without`` and errors, ``compressor`` for ``level``; what ``write``
    raises is raised here.
    """
    codec = compressor(compression, level, portable=clamp_s is not None)
    outflow = _Outflow(write, codec, is_plain=compression == "uncompressed")
    outflow.start()
    try:
        packed = pack(directory, outflow.put, clamp_s=clamp_s, whiteouts=whiteouts, without=without)
    except BaseException:
        outflow.abandon()  # which tells a failed write from a failed read
        raise
    return outflow.finish(packed)


class _Inflow(PieceThread):
    """Reads, hashes and inflates a blob; the caller reads the content."""

    def __init__(self, read: Callable[[int], bytes], descriptor: Descriptor, compression: Compression) -> None:
        super().__init__("layer-inflate")
        self._read_blob = read
        self._expected = descriptor
        self._decompressor = decompressor(compression)
        self._blob_hash = descriptor.digest.hasher()
        same = compression == "uncompressed" and descriptor.digest.algorithm == "sha256"
        self._diff_hash = self._blob_hash if same else hashlib.sha256()

    def diff_id(self) -> DiffID:
        return DiffID.from_hash(self._diff_hash)

    def _make(self) -> None:
        blob = self._blob()
        try:
            for data in blob:
                for piece in self._decompressor.decompress(data):
                    if self._diff_hash is not self._blob_hash:
                        self._diff_hash.update(piece)
                    self._give(piece)
            self._decompressor.close()
        except InvalidArchive:
            for _ in blob:  # wrong bytes are a better reason than what they look like
                pass
            raise

    def _blob(self) -> Iterator[bytes]:
        """The blob's bytes, at most one more than it should have; raises at their end if they are wrong."""
        expected, size = self._expected, 0
        while not self._stopped.is_set() and (data := self._some(expected.size - size + 1)):
            size += len(data)
            if size > expected.size:
                raise SizeMismatch(expected.size, size, what="layer blob")
            self._blob_hash.update(data)
            yield data
        if self._stopped.is_set():
            return
        if size != expected.size:
            raise SizeMismatch(expected.size, size, what="layer blob")
        actual = Digest.from_hash(self._blob_hash)
        if actual != expected.digest:
            raise DigestMismatch(expected.digest, actual, what="layer blob")

    def _some(self, limit: int) -> bytes:
        try:
            return self._read_blob(min(_READ_SIZE, limit))
        except OSError as error:  # which ``unpack`` would take for its target's
            reason = (error.strerror or str(error)).lower()
            raise StorageError(f"cannot read layer blob {self._expected.digest}: {reason}") from error


class _Outflow(Thread):
    """Compresses, hashes and writes what the caller packs."""

    def __init__(self, write: Callable[[bytes], None], codec: Compressor, *, is_plain: bool) -> None:
        super().__init__(name="layer-compress", daemon=True)
        self._write = write
        self._compressor = codec
        self._diff_hash = hashlib.sha256()
        self._blob_hash = None if is_plain else hashlib.sha256()
        self._size = 0
        self._pieces: Queue[bytes | None] = Queue(QUEUE_SIZE)
        self._failure: BaseException | None = None

    def put(self, piece: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        self._diff_hash.update(piece)
        self._pieces.put(piece)

    def finish(self, packed: Packed) -> PackedBlob:
        self._pieces.put(None)
        self.join()
        if self._failure is not None:
            raise self._failure
        diff_id, digest = DiffID.from_hash(self._diff_hash), Digest.from_hash(self._blob_hash or self._diff_hash)
        return PackedBlob(diff_id, digest, self._size, packed.entries, packed.size)

    def abandon(self) -> None:
        """End the thread without ending the blob. Raises its own failure, if it had one."""
        failure = self._failure
        self._failure = failure or RuntimeError("abandoned")
        self._pieces.put(None)
        self.join()
        if failure is not None:
            raise failure

    def run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            if self._failure is None:
                self._guarded(self._compress, piece)
        if self._failure is None:
            self._guarded(self._flush)

    def _guarded(self, work: Callable[..., None], *arguments: bytes) -> None:
        """Work until the first failure, which ``put`` and ``finish`` raise; then only make room."""
        try:
            work(*arguments)
        except BaseException as error:
            self._failure = error

    def _compress(self, piece: bytes) -> None:
        self._store(self._compressor.compress(piece))

    def _flush(self) -> None:
        self._store(self._compressor.flush())

    def _store(self, data: bytes) -> None:
        if not data:
            return
        if self._blob_hash is not None:
            self._blob_hash.update(data)
        self._size += len(data)
        self._write(data)
