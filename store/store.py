"""The store: one root that any number of processes share.

Promises:

- A change is visible whole or not at all; ``kill -9`` at any instant loses nothing that was
  reported done, and the next command works.
- What a process is making or using is held by its *session*: a file in ``leases/`` that is
  locked while the process lives, and rows that name what it holds. When the process dies,
  by whatever means, the kernel drops the lock and the next session sweeps the rest.
- No lock is held across a download or a RUN.

    <root>/oci-layout, index.json, blobs/   a valid OCI image layout (``store.content``)
    <root>/overlay2/                        unpacked layers (``store.layers``)
    <root>/git/                             commits that builds fetched (``store.repositories``)
    <root>/metadata.db                      what all that is (``store.metadata``)
    <root>/events/                          what happened lately (``store.journal``)
    <root>/ingest/ leases/ trash/           unfinished, held and discarded things
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress

from image import media_types
from image.bare import dumps
from image.descriptor import Descriptor
from image.digest import ChainID, DiffID, Digest
from image.paths import Path
from image.reference import Reference
from image.value import dataclass
from store.content import BlobWriter, ContentStore, replace_file, storage_errors
from store.gc import garbage
from store.images import ImageFacts, image_facts
from store.journal import Journal
from store.layers import LayerStore, Workspace, new_directory_name
from store.metadata import ImageRecord, LayerRecord, Metadata, NameRecord
from store.room import Room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Final, Self


_GENERATION: Final = "dev.tierce.generation"
_INDEX_TAIL: Final = 128
"""The annotations are the last member of index.json, and short."""


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What a collection removed. ``size`` in bytes of blobs and layers' files."""

    blobs: int
    layers: int
    size: int


class Store:
    """Open with ``Store.open``; close when done."""

    def __init__(
        self, root: Path, content: ContentStore, metadata: Metadata, layers: LayerStore, keep_free: int | None = None
    ) -> None:
        self.root = root
        self.content = content
        self.metadata = metadata
        self.layers = layers
        self.journal = Journal(root)
        self._leases = root / "leases"
        self._keep_free = keep_free

    def room(self) -> Room:
        """What may still be written here of what comes from elsewhere."""
        return Room(self.root, self._keep_free)

    @classmethod
    def open(cls, root: Path, keep_free: int | None = None) -> Store:
        """The store at ``root``, made when absent; see ``Room`` for ``keep_free``. Raises StorageError."""
        with storage_errors(f"open the store {root}"):
            root.mkdir(parents=True, exist_ok=True)
            content = ContentStore(root)
            content.create()
            (root / "leases").mkdir(mode=0o700, exist_ok=True)
        metadata = Metadata(root / "metadata.db")
        layers = LayerStore(root, metadata)
        with storage_errors(f"open the store {root}"):
            layers.create()
        store = cls(root, content, metadata, layers, keep_free)
        if not store._index_is_current():
            with metadata.transaction():
                if not store._index_is_current():  # another process may just have been between file and commit
                    store._write_index()
        return store

    def close(self) -> None:
        self.metadata.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def session(self) -> Session:
        """A context manager that holds what the caller makes and uses."""
        return Session(self)

    # Images

    def facts(self, target: Descriptor) -> ImageFacts:
        """What an image consists of, read from its documents. Raises BlobNotFound, InvalidManifest."""
        return image_facts(self.content, target)

    def add_image(self, target: Descriptor, names: Iterable[Reference] = (), *, source: str = "") -> None:
        """Make an image visible, with names that move to it from whatever had them.

        Everything it needs is in the store already and held by the caller's session; a child
        of an index may be absent (a user who pulls one platform has a sparse index).
        ``source`` is the digest that the names had at the registry.

        Raises BlobNotFound when a blob is missing.
        """
        facts = self.facts(target)
        with self.metadata.transaction(self._write_index):
            for blob in facts.blobs:
                self.content.size(blob.digest)
            self.metadata.add_image(
                target, config=facts.config, platform=facts.platform, created=facts.created,
                blobs=facts.blobs, layers=facts.layers,
            )  # fmt: skip
            given = list(names)
            for name in given:
                self.metadata.set_name(str(name), target.digest, source)
        for name in given:
            self.journal.write("image", "tag", facts.config, {"name": name.familiar})

    def remove_name(self, name: str) -> bool:
        """Untag: the image itself stays. False when there is no such name."""
        with self.metadata.transaction(self._write_index):
            record = self.metadata.name(name)
            known = None if record is None else self._image(record.target.digest)
            done = self.metadata.remove_name(name)
        if known is not None and done:
            self.journal.write("image", "untag", known.config, {"name": known.config})  # as docker tells it
        return done

    def remove_image(self, target: Digest) -> bool:
        """Forget an image and all its names. ``collect`` frees the space."""
        with self.metadata.transaction(self._write_index):
            known = self._image(target)
            done = self.metadata.remove_image(target)
        if known is not None and done:
            for _ in known.names:
                self.journal.write("image", "untag", known.config, {"name": known.config})
            self.journal.write("image", "delete", known.config, {"name": known.config})
        return done

    def _image(self, target: Digest) -> ImageRecord | None:
        return next((record for record in self.metadata.images() if record.target.digest == target), None)

    def _index_is_current(self) -> bool:
        """Whether index.json says what SQLite says; not so after a kill between writing it and the commit."""
        with suppress(FileNotFoundError), (self.root / "index.json").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _INDEX_TAIL))
            return _generation_member(self.metadata.generation()).encode() in file.read()
        return False

    def _write_index(self) -> None:
        """index.json from SQLite, inside the transaction that changed the names."""
        generation = self.metadata.next_generation()
        replace_file(self.root / "index.json", _index_document(self.metadata.names(), generation))

    # Garbage

    def collect(self) -> Reclaimed:
        """Remove what no image, cached step or live session needs."""
        from store.repositories import Repositories
        from store.uses import used_blobs, used_chains

        self.sweep_dead_sessions()
        size = 0
        with self.metadata.transaction():
            found = garbage(
                blobs=list(self.content.digests()),
                used_blobs=used_blobs(self.metadata),
                layers=self.metadata.layers(),
                used_chains=used_chains(self.metadata),
                directories=self.layers.directories(),
                used_directories=self.metadata.leased("directory"),
            )
            for layer in found.layers:
                self.metadata.remove_layer(layer.chain_id)
                self.layers.discard(layer.directory)
                size += layer.size
            for name in found.directories:
                self.layers.discard(name)
            for digest in found.blobs:
                size += self.content.delete(digest)
        self.layers.empty_trash()
        size += Repositories(self.root, self.metadata).collect()
        return Reclaimed(len(found.blobs), len(found.layers), size)

    def sweep_dead_sessions(self) -> None:
        """Undo what sessions left that no longer live. Cheap when there are none."""
        for path in list(self._leases.iterdir()):
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                self._end_session(path)
            finally:
                os.close(fd)

    def _end_session(self, path: Path) -> None:
        """Release a session whose lock the caller holds; unfinished work is discarded."""
        lease = path.name
        self.content.discard_ingest(f"{lease}-")
        with self.metadata.transaction():
            held = self.metadata.lease_holdings(lease, "directory")
            self.metadata.release(lease)
            committed = {layer.directory for layer in self.metadata.layers()} if held else set()
            for directory in held - committed - self.metadata.leased("directory"):
                self.layers.discard(directory)
        self.layers.empty_trash()
        with suppress(FileNotFoundError):
            path.unlink()


class Session:
    """What one process makes and uses; safe from ``collect`` until the session ends."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.content = store.content
        self._fd = -1
        self._path = Path()
        self._scratch: list[Path] = []

    def __enter__(self) -> Self:
        self.store.sweep_dead_sessions()
        while self._fd < 0:
            self._acquire(self.store._leases / os.urandom(8).hex())
        return self

    def _acquire(self, path: Path) -> None:
        """Create and lock a lease file; a sweeper may take it in between, then try another."""
        with storage_errors(f"open a session in {self.store.root}"):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                self._fd, self._path = fd, path
                return
        except BlockingIOError:
            pass
        os.close(fd)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for path in self._scratch:  # first, as a full disk may leave no room for what the end writes
            import shutil  # most sessions have none

            shutil.rmtree(path, ignore_errors=True)
        try:
            self.store._end_session(self._path)
        finally:
            os.close(self._fd)
            self._fd = -1

    # Blobs

    def writer(self) -> BlobWriter:
        """A new blob; it is held by this session from its commit on."""
        return _HeldWriter(self, self.content.ingest_path(f"{self._path.name}-{os.urandom(8).hex()}"))

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Store a small document. Idempotent."""
        descriptor = Descriptor.of(data, media_type)
        if not self.reuse(descriptor.digest):
            with self.writer() as writer:
                writer.write(data)
                writer.commit(descriptor)
        return descriptor

    def reuse(self, digest: Digest) -> bool:
        """Hold a blob that may be there; False when it is not."""
        with self.store.metadata.transaction():
            self.store.metadata.lease(self._path.name, "blob", str(digest))
            return self.content.has(digest)

    def hold_layers(self, chain_id: ChainID) -> bool:
        """Hold an unpacked stack that may be there; False when it is not."""
        with self.store.metadata.transaction():
            self.store.metadata.lease(self._path.name, "chain", str(chain_id))
            return self.store.layers.has(chain_id)

    # Layers

    def workspace(self, above: str | None) -> Workspace:
        """A new layer directory over the layer directory ``above``; discarded at the end unless committed."""
        directory = new_directory_name()
        self.store.metadata.lease(self._path.name, "directory", directory)
        return self.store.layers.make_workspace(directory, above)

    def scratch(self) -> Path:
        """An empty directory beside the layers, for files that are needed for a while; gone with the session."""
        directory = new_directory_name()
        self.store.metadata.lease(self._path.name, "directory", directory)
        path = self.store.layers.make_scratch(directory)
        self._scratch.append(path)
        return path

    def commit_layer(
        self, workspace: Workspace, parent: ChainID | None, diff_id: DiffID, *, size: int, entries: int
    ) -> LayerRecord:
        """Make a workspace a layer that this session holds. See ``LayerStore.commit``."""
        chain_id = parent.then(diff_id) if parent else ChainID(str(diff_id))
        with self.store.metadata.transaction():
            self.store.metadata.lease(self._path.name, "chain", str(chain_id))
            return self.store.layers.commit(workspace, parent, diff_id, size=size, entries=entries)

    def discard(self, workspace: Workspace) -> None:
        """Give up a workspace before the session ends."""
        self.store.layers.discard(workspace.directory)
        self.store.layers.empty_trash()


class _HeldWriter(BlobWriter):
    """A blob writer whose blob is leased before it becomes visible."""

    def __init__(self, session: Session, path: Path) -> None:
        super().__init__(session.content, path)
        self._session = session

    def commit_as(self, digest: Digest) -> Digest:
        self._session.store.metadata.lease(self._session._path.name, "blob", str(digest))
        return super().commit_as(digest)


def _index_document(names: Iterable[NameRecord], generation: int) -> bytes:
    """index.json: each name as ``org.opencontainers.image.ref.name``, in the short form users type."""
    manifests = []
    for record in names:
        entry = record.target.to_json()
        entry["annotations"] = {
            "io.containerd.image.name": record.name,
            "org.opencontainers.image.ref.name": Reference.parse(record.name).familiar,
        }
        manifests.append(entry)
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": manifests,
        "annotations": {_GENERATION: str(generation)},
    }
    return dumps(document, compact=True).encode()


def _generation_member(generation: int) -> str:
    return f'"{_GENERATION}":"{generation}"'
