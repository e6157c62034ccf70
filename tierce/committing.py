"""A container to an image: what it changed as one more layer, how it was run as the configuration.

As in docker the image gets the command, environment, labels and the rest that the container was
created with, and then the changes of ``--change``. Volumes are not part of it, nor are files that
were only made to mount something over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from image import media_types
from image.config import History, ImageConfig
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import BlobNotFound, InvalidManifest, NotPermitted
from image.manifest import Manifest, decode_manifest
from image.reference import Reference
from image.value import dataclass, replace
from runner.containers.control import Control
from runner.containers.records import Record
from runner.containers.rootfs import STUBS
from store.changes import changes, stubs_in
from store.layer_blob import PackedBlob, pack_blob
from store.layers import mounted
from store.store import Session
from store.unpacking import ensure_unpacked
from tierce.container_config import container_config
from tierce.importing import changed


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """What the image says of itself. ``changes`` are Dockerfile instructions; ``pause``: freeze what runs meanwhile."""

    message: str = ""
    author: str = ""
    changes: Sequence[str] = ()
    pause: bool = True
    now_s: float = 0.0


def commit(over: Control, record: Record, names: Sequence[Reference], options: CommitOptions) -> str:
    """Make an image of a container that is ``held``; the image's id.

    Raises DockerfileError for a wrong change, before anything is done; NotPermitted where a running
    container can't be paused; BlobNotFound, InvalidInput, StorageError.
    """
    store = over.records.store
    with store.session() as session:
        base, config = _base(session, record)
        own = container_config(store, record.made)
        container = changed(own, options.changes, config.platform)
        with _paused(over, record, wanted=options.pause):
            packed = _layer(session, record)
        created = datetime.fromtimestamp(options.now_s, UTC).isoformat().replace("+00:00", "Z")
        entry = History(created, " ".join(own.cmd or ()), options.message, options.author, empty_layer=packed is None)
        diff_ids = (*config.diff_ids, packed.diff_id) if packed else config.diff_ids
        history = (*config.history, entry)
        image = ImageConfig(config.platform, container, diff_ids, history, created, options.author)
        manifest = _manifest(session, base, image, packed)
        target = session.put(manifest.raw, manifest.media_type)
        ensure_unpacked(session, store.facts(target))
        store.add_image(target, names)
    return str(manifest.config.digest)


def _base(session: Session, record: Record) -> tuple[Manifest, ImageConfig]:
    """The container's image, whose blobs the session holds from now on. Raises BlobNotFound, InvalidManifest."""
    content = session.content
    digest = Digest(record.image)
    session.reuse(digest)
    manifest = decode_manifest(content.read(Descriptor(media_types.OCI_MANIFEST, digest, content.size(digest))))
    if not isinstance(manifest, Manifest):
        raise InvalidManifest("", f"container {record.name} was made of an index")
    for blob in manifest.children:
        if not session.reuse(blob.digest) and not media_types.is_foreign(blob.media_type):
            raise BlobNotFound(f"cannot commit container {record.name}: blob {blob.digest} of its image is gone")
    return manifest, ImageConfig.decode(content.read(manifest.config))


def _layer(session: Session, record: Record) -> PackedBlob | None:
    """The container's changes as a blob; None when there are none."""
    layers = session.store.layers
    upper = layers.base / record.made.directory / "diff"
    with mounted(layers.overlay(record.made.layers)) as below:
        if not changes(upper, below, stubs=STUBS):
            return None
        stubs = stubs_in(upper, below, STUBS)
    with session.writer() as writer:
        packed = pack_blob(upper, writer.write_hashed, "gzip", without=stubs)
        writer.commit_as(packed.digest)
    return packed


def _manifest(session: Session, base: Manifest, image: ImageConfig, packed: PackedBlob | None) -> Manifest:
    """In the format of the base, whose layers are in it as they are."""
    docker = base.media_type == media_types.DOCKER_MANIFEST
    layers = base.layers
    if packed:
        layer_type = media_types.DOCKER_LAYER_GZIP if docker else media_types.OCI_LAYER_GZIP
        layers = (*layers, Descriptor(layer_type, packed.digest, packed.size))
    config = session.put(image.encode(), media_types.DOCKER_CONFIG if docker else media_types.OCI_CONFIG)
    return Manifest.build(config, layers, media_type=base.media_type)


@contextmanager
def _paused(over: Control, record: Record, *, wanted: bool) -> Iterator[None]:
    """Frozen meanwhile, if it runs and was not frozen before. Raises NotPermitted."""
    if not wanted or record.state.status != "running":
        yield
        return
    try:
        over.pause(record)
    except NotPermitted as error:
        raise NotPermitted(f"{error}: use --pause=false to commit it as it runs") from error
    try:
        yield
    finally:
        over.unpause(replace(record, state=replace(record.state, status="paused")))
