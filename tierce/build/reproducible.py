"""``--verify-reproducible``: the same build once more, in a store that shares nothing, and what differs.

The second store lies in a layer directory that the first build's session holds, so it goes
with it, however that ends. Base images are linked into it, blob by blob: they are inputs.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from builder.differences import FileFacts, config_differences, layer_differences, order_difference
from builder.graph import BaseImage
from builder.outputs import base_depth, image_config
from builder.results import BuiltLayer
from image import media_types
from image.descriptor import Descriptor
from image.digest import ChainID
from image.platform import Platform
from image.reference import Reference
from image.value import replace
from store.compression import Decompressor, decompressor
from store.content import ContentStore
from store.store import Session, Store
from store.unpacking import ensure_unpacked
from tierce.build.building import Build, BuildRequest, Connections, SolvedBuild

if TYPE_CHECKING:
    from typing import BinaryIO


_CHUNK: Final = 1 << 20
_TYPES: Final = {
    tarfile.REGTYPE: "file", tarfile.LNKTYPE: "hard link", tarfile.SYMTYPE: "symbolic link", tarfile.DIRTYPE: "directory",
    tarfile.CHRTYPE: "character device", tarfile.BLKTYPE: "block device", tarfile.FIFOTYPE: "fifo",
}  # fmt: skip


class _LinkedImages:
    """The base images of another store, linked into this one. Implements ``builder.ports.BaseImages``."""

    def __init__(self, content: ContentStore, resolved: Mapping[tuple[Reference, Platform], BaseImage]) -> None:
        self._content = content
        self._resolved = resolved

    def resolve(self, reference: Reference, platform: Platform) -> BaseImage:
        return self._resolved[reference, platform]

    def unpack(self, session: Session, image: BaseImage) -> ChainID | None:
        for blob in (image.manifest, *_children(self._content, image)):
            source, target = self._content.path(blob.digest), session.content.path(blob.digest)
            if not session.reuse(blob.digest):
                os.link(source, target)
        return ensure_unpacked(session, session.store.facts(image.manifest))


def _children(content: ContentStore, image: BaseImage) -> Sequence[Descriptor]:
    from image.manifest import decode_manifest

    return decode_manifest(content.read(image.manifest), image.manifest.media_type).children


@contextmanager
def scratch_session(session: Session) -> Iterator[Session]:
    """A session of an empty store that ends with it."""
    workspace = session.workspace(None)
    try:
        with Store.open(workspace.diff / "store") as store, store.session() as second:
            yield second
    finally:
        session.discard(workspace)


def verify(
    session: Session,
    second: Session,
    first: Sequence[SolvedBuild],
    requests: Sequence[BuildRequest],
    connections: Connections,
    resolved: Mapping[tuple[Reference, Platform], BaseImage],
) -> list[str]:
    """Build ``requests`` again in the session ``second``; a line for everything that differs from ``first``."""
    world = replace(connections, images=_LinkedImages(session.content, resolved), remotes=())
    lines: list[str] = []
    for before, request in zip(first, requests, strict=True):
        after = Build(second, request, world).solve()
        found = _compare(before, session.content, after, second.content, request.solve.epoch_s, connections.clock)
        prefix = f"{before.graph.platform} " if len(requests) > 1 else ""
        lines += [prefix + line for line in found]
    return lines


def _compare(
    before: SolvedBuild,
    first: ContentStore,
    after: SolvedBuild,
    second: ContentStore,
    epoch_s: int | None,
    clock: Callable[[], float],
) -> Iterator[str]:
    now_s = clock()
    configs = [
        image_config(build.graph, build.stack, now_s=now_s, epoch_s=epoch_s).encode() for build in (before, after)
    ]
    yield from (f"config {line}" for line in config_differences(configs[0], configs[1]))
    depth = base_depth(before.graph)
    names = [planned.created_by for planned in before.graph.history if planned.step is not None]
    pairs = zip(names, before.stack[depth:], after.stack[depth:], strict=True)
    for place, (name, one, other) in enumerate(pairs, start=1):
        if one.diff_id != other.diff_id:
            files = _files(first, one), _files(second, other)
            found = list(layer_differences(*files)) or [order_difference(*files)]
            yield from (f"layer {place} ({name}) {line}" for line in found)


def _files(content: ContentStore, layer: BuiltLayer) -> dict[str, FileFacts]:
    """What a layer's tar says, by path, in its order."""
    codec = decompressor(media_types.layer_compression(layer.blob.media_type))
    with content.open(layer.blob) as blob, tarfile.open(fileobj=_Inflating(blob, codec), mode="r|") as archive:
        return {"/" + entry.name: _facts(archive, entry) for entry in archive}


def _facts(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> FileFacts:
    digest = ""
    if entry.isreg() and (file := archive.extractfile(entry)) is not None:
        content = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            content.update(chunk)
        digest = content.hexdigest()
    xattrs = {name: value for name, value in entry.pax_headers.items() if name.startswith("SCHILY.xattr.")}
    return FileFacts(
        _TYPES.get(entry.type, repr(entry.type)), f"{entry.mode:o}", f"{entry.uid}:{entry.gid}", entry.size,
        str(entry.mtime), entry.linkname, str(sorted(xattrs.items()) or ""), digest[:16],
    )  # fmt: skip


class _Inflating(io.RawIOBase):
    """A compressed stream as the one that is in it."""

    def __init__(self, source: BinaryIO, codec: Decompressor) -> None:
        self._source = source
        self._codec = codec
        self._pieces: Iterator[bytes] = iter(())
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is not None:
                self._rest = piece
                continue
            chunk = self._source.read(_CHUNK)
            if not chunk:
                return b""
            self._pieces = self._codec.decompress(chunk)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece
