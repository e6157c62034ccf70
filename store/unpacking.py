"""An image's layer blobs into overlay2 layers, as many at once as helps.

Each layer unpacks into a directory of its own, so order does not matter until the rows
that stack them are written, bottom to top. A pull starts a layer as soon as its blob is
there (``Unpacking``); whoever finds an image whose layers are missing calls
``ensure_unpacked``.

Spec: image-spec "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Self, cast

from image.descriptor import Descriptor
from image.digest import ChainID, DiffID
from image.errors import DigestMismatch, InvalidManifest
from image.value import dataclass
from store.compression import PREFIX_SIZE, detect
from store.images import ImageFacts
from store.layer_blob import unpack_blob
from store.layers import Workspace
from store.metadata import ImageLayer
from store.owners import copy_record
from store.store import Session
from store.unpack import Unpacked

if TYPE_CHECKING:
    from types import TracebackType

    from image.media_types import Compression

UnpackProgress = Callable[[Descriptor, Unpacked | None], None]
"""Called from several threads: with None when a layer begins, with what it held when it ends."""

_WORKERS: Final = 2
"""Unpacking is bound by the interpreter and the file system; hashing and inflating run beside it."""

_UNTOUCHED: Final = 0o1701
"""Mode of a fresh layer root. An archive without an entry for its root leaves it, and then the
root of the layer below is what a container must see as ``/``."""


def _silent(_layer: Descriptor, _unpacked: Unpacked | None) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Unpacked:
    workspace: Workspace
    content: Unpacked


class Unpacking:
    """The layers of one image on their way. A context manager: leaving it waits for all threads.

    ``layers`` bottom to top, each with the descriptor of its blob.
    """

    def __init__(
        self, session: Session, layers: Sequence[tuple[ImageLayer, Descriptor]], progress: UnpackProgress = _silent
    ) -> None:
        self._session = session
        self._layers = layers
        self._progress = progress
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="unpack")
        self._started: dict[int, Future[_Unpacked]] = {}
        self._present = self._count_present()

    def _count_present(self) -> int:
        """How many layers, from the bottom, are unpacked already and now held."""
        for count in range(len(self._layers), 0, -1):
            if self._session.hold_layers(self._layers[count - 1][0].chain_id):
                return count
        return 0

    def start(self, blob: Descriptor) -> None:
        """Unpack every layer that this blob holds and that is not there yet. The blob is in the store."""
        for index, (layer, _) in enumerate(self._layers):
            if layer.digest == blob.digest and index >= self._present and index not in self._started:
                self._started[index] = self._pool.submit(self._unpack, index)

    def finish(self) -> ChainID | None:
        """Unpack what was not started, and stack all layers; the top of the stack.

        Raises what unpacking raised: DigestMismatch when a layer's content is not what the
        image's config says, BlobNotFound, InvalidArchive, StorageError.
        """
        for _, descriptor in self._layers:
            self.start(descriptor)
        below = self._layers[self._present - 1][0].chain_id if self._present else None
        for index in range(self._present, len(self._layers)):
            layer = self._layers[index][0]
            self._stack(self._started[index].result(), below, layer.diff_id)
            below = layer.chain_id
        return below

    def _unpack(self, index: int) -> _Unpacked:
        layer, descriptor = self._layers[index]
        self._session.content.size(descriptor.digest)  # BlobNotFound rather than a bare OSError
        self._progress(descriptor, None)
        workspace = self._session.workspace(None)
        os.chmod(workspace.diff, _UNTOUCHED)
        with self._session.content.path(descriptor.digest).open("rb", buffering=0) as file:
            compression = _compression(file.read(PREFIX_SIZE))
            file.seek(0)
            diff_id, content = unpack_blob(
                cast("Callable[[int], bytes]", file.read), descriptor, compression, workspace.diff,
                room=self._session.store.room(),
            )  # fmt: skip
        if diff_id != layer.diff_id:
            raise DigestMismatch(layer.diff_id, diff_id, what=f"content of layer {descriptor.digest}")
        self._progress(descriptor, content)
        return _Unpacked(workspace, content)

    def _stack(self, unpacked: _Unpacked, below: ChainID | None, diff_id: DiffID) -> None:
        self._set_root(unpacked.workspace, below)
        content = unpacked.content
        self._session.commit_layer(unpacked.workspace, below, diff_id, size=content.size, entries=content.entries)

    def _set_root(self, workspace: Workspace, below: ChainID | None) -> None:
        if stat.S_IMODE(workspace.diff.stat().st_mode) != _UNTOUCHED:
            return
        layers = self._session.store.layers
        root = layers.diff(layers.get(below)).stat() if below else None
        os.chmod(workspace.diff, stat.S_IMODE(root.st_mode) if root else 0o755)
        if root and (root.st_uid or root.st_gid):
            os.chown(workspace.diff, root.st_uid, root.st_gid)
        copy_record(layers.diff(layers.get(below)) if below else None, workspace.diff)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def ensure_unpacked(session: Session, facts: ImageFacts, progress: UnpackProgress = _silent) -> ChainID | None:
    """Have an image's layers unpacked and held by the session; the top of its stack, None for no layers.

    ``facts`` are those of one manifest, not of an index. Cheap when nothing is missing.
    Raises as ``Unpacking.finish``, and InvalidManifest for a layer whose blob is not local.
    """
    blobs = {blob.digest: blob for blob in facts.blobs}
    try:
        layers = [(layer, blobs[layer.digest]) for layer in facts.layers]
    except KeyError as error:
        raise InvalidManifest("layers", f"layer {error.args[0]} is kept elsewhere and was not fetched") from None
    if layers and session.hold_layers(layers[-1][0].chain_id):
        return layers[-1][0].chain_id
    with Unpacking(session, layers, progress) as unpacking:
        return unpacking.finish()


def _compression(prefix: bytes) -> Compression:
    """By content, as docker does: media types of old images lie."""
    codec = detect(prefix)
    if codec == "bzip2" or codec == "xz":  # noqa: PLR1714 - the checker narrows this form only
        raise InvalidManifest("layers", f"a layer is compressed with {codec}: want gzip, zstd or none")
    return codec
