"""A root filesystem's tar into an image of one layer.

The tar, compressed or not, is read once: inflated, parsed so that what is no tar is refused,
hashed for the diff_id, compressed and stored. As root it is unpacked before it gets a name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from builder.dockerfile.instructions import (
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Label,
    Onbuild,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse
from builder.graph import FromScratch, Step
from builder.stage_plan import PlanOptions, Scope, StagePlan, StageState
from image import media_types
from image.config import ContainerConfig, History, ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID
from image.errors import DockerfileError, InvalidArchive
from image.manifest import Manifest
from image.platform import Platform
from image.reference import Reference
from image.span import Span
from image.value import dataclass
from store.compression import PREFIX_SIZE, compressor, decompressor, detect
from store.store import Session, Store
from store.tar_reader import Reader
from store.unpacking import ensure_unpacked

_CHUNK: Final = 1 << 20
_ALLOWED: Final = (Cmd, Entrypoint, Env, Expose, Healthcheck, Label, Onbuild, Stopsignal, User, Volume, Workdir)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the image says of itself. ``changes`` are Dockerfile instructions, one each."""

    platform: Platform
    changes: Sequence[str] = ()
    message: str = ""
    origin: str = "-"
    now_s: float = 0.0


def import_tar(store: Store, read: Callable[[int], bytes], names: Sequence[Reference], options: ImportOptions) -> str:
    """Make an image of the tar that ``read(n)`` gives (``b""`` at its end); the image's id.

    Raises InvalidArchive for what is no tar, DockerfileError for a wrong change, StorageError.
    """
    container = changed(ContainerConfig(), options.changes, options.platform)
    with store.session() as session:
        layer, diff_id = _store_layer(session, read)
        created = datetime.fromtimestamp(options.now_s, UTC).isoformat().replace("+00:00", "Z")
        comment = options.message or f"Imported from {options.origin}"
        config = ImageConfig(options.platform, container, (diff_id,), (History(created, "", comment),), created)
        config_blob = session.put(config.encode(), media_types.OCI_CONFIG)
        manifest = Manifest.build(config_blob, [layer])
        target = session.put(manifest.raw, manifest.media_type)
        if os.geteuid() == 0:
            ensure_unpacked(session, store.facts(target))
        store.add_image(target, names)
    return str(config_blob.digest)


def changed(config: ContainerConfig, changes: Sequence[str], platform: Platform) -> ContainerConfig:
    """A configuration after Dockerfile instructions that only configure. Raises DockerfileError."""
    state = StageState(Step.make(FromScratch(), name="import"), None, config, variables=config.env_map())
    options = PlanOptions(platform, platform)
    plan = StagePlan("import", state, Scope({}, "\\", options), _refuse_stage)
    for change in changes:
        found = instructions(parse(change.encode("utf-8", "surrogateescape"), "--change"))
        for instruction in found:
            if not isinstance(instruction, _ALLOWED):
                known = ", ".join(kind.__name__.upper() for kind in _ALLOWED)
                raise DockerfileError(f"{instruction.keyword} is not possible here: there are {known}")
        plan.carry_out(found)
    return state.config


def _refuse_stage(name: str, span: Span) -> Step:
    raise DockerfileError(f"no stage {name!r} to copy from", span=span)


def _store_layer(session: Session, read: Callable[[int], bytes]) -> tuple[Descriptor, DiffID]:
    hasher, codec = hashlib.sha256(), compressor("gzip")
    with session.writer() as writer:

        def take() -> Iterator[bytes]:
            for piece in _inflated(read):
                hasher.update(piece)
                writer.write(codec.compress(piece))
                yield piece

        pieces = take()
        reader = Reader(lambda _size: next(pieces, b""))
        while reader.next() is not None:
            pass
        for _ in pieces:  # what follows the end-of-archive marker is part of the layer too
            pass
        writer.write(codec.flush())
        size, digest = writer.size, writer.commit()
    return Descriptor(media_types.OCI_LAYER_GZIP, digest, size), DiffID.from_hash(hasher)


def _inflated(read: Callable[[int], bytes]) -> Iterator[bytes]:
    prefix = b""
    while len(prefix) < PREFIX_SIZE and (more := read(PREFIX_SIZE - len(prefix))):
        prefix += more
    if not prefix:
        raise InvalidArchive("empty: want the tar of a root filesystem")
    with closing(decompressor(detect(prefix))) as codec:
        yield from codec.decompress(prefix)
        while chunk := read(_CHUNK):
            yield from codec.decompress(chunk)
