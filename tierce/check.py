"""The store, verified: every byte against its digest, every record against what is on disk.

``check_store`` only looks. What it yields is a *finding*: a ``Problem`` is damage; ``Unused``
is space that a collection would free, as is usual after an ``rmi --no-prune`` or a kill.
``repair`` writes index.json anew and removes leftovers; damaged blobs and layers can only be
pulled or built again.
"""

from __future__ import annotations

import json
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

from image.digest import ChainID, Digest
from image.errors import BlobNotFound, InvalidArchive, InvalidDigest, TierceError
from image.value import dataclass
from store.container_rows import owners as container_owners
from store.failed_steps import FailedSteps
from store.locks import is_held
from store.metadata import LayerRecord
from store.store import Reclaimed, Store
from store.uses import used_blobs, used_chains

_CHUNK: Final = 1 << 20

Area = Literal["metadata", "image", "blob", "layer", "index", "leftover"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something is not as it must be. ``message`` is one line."""

    area: Area
    message: str


@dataclass(frozen=True, slots=True)
class Unused:
    """Whole but not needed. ``size`` in bytes."""

    what: str
    size: int


Finding: TypeAlias = Problem | Unused


@dataclass(frozen=True, slots=True)
class Hashed:
    """Progress: ``done`` of ``total`` bytes of blobs were read."""

    done: int
    total: int


def check_store(store: Store, progress: Callable[[Hashed], None] = lambda _: None) -> Iterator[Finding]:
    """All that is wrong with a store. Other processes may use it meanwhile; nothing is changed."""
    for message in store.metadata.integrity():
        yield Problem("metadata", f"SQLite: {message}")
    yield from _check_images(store)
    yield from _check_blobs(store, progress)
    yield from _check_layers(store)
    yield from _check_index(store)
    yield from _check_leftovers(store)


def repair(store: Store) -> Reclaimed:
    """Write oci-layout and index.json anew, and remove what nothing needs and no live process holds."""
    store.content.mark()
    store.remove_name("")  # a change of no name writes index.json from the records
    holders = _live_sessions(store)
    for name in _names(store.root / "ingest"):
        if name.partition("-")[0] not in holders:
            with suppress(FileNotFoundError):
                os.unlink(store.root / "ingest" / name)
    return store.collect()


def _check_images(store: Store) -> Iterator[Problem]:
    """Each image's documents decode, and all that they name is there."""
    for record in store.metadata.images():
        label = record.names[0] if record.names else record.config
        try:
            facts = store.facts(record.target)
        except TierceError as error:
            yield Problem("image", f"image {label}: {error}")
            continue
        for blob in facts.blobs:
            try:
                size = store.content.size(blob.digest)
            except BlobNotFound:
                yield Problem("image", f"image {label}: blob {blob.digest} is missing")
            else:
                if size != blob.size:
                    yield Problem("image", f"image {label}: blob {blob.digest} has {size} bytes, expected {blob.size}")


def _check_blobs(store: Store, progress: Callable[[Hashed], None]) -> Iterator[Finding]:
    sizes = {digest: _size(store.content.path(digest)) for digest in store.content.digests()}
    total, done = sum(sizes.values()), 0
    for digest, size in sizes.items():
        if not _is_intact(store.content.path(digest), digest, _shifted(progress, done, total)):
            yield Problem("blob", f"blob {digest} is damaged: its bytes have another digest")
        done += size
    progress(Hashed(total, total))
    used, leased = used_blobs(store.metadata), store.metadata.leased("blob")
    for missing in sorted(used - leased):  # a running process leases a blob before it has it
        if not store.content.has(Digest(missing)) and missing in used_blobs(store.metadata):
            yield Problem("blob", f"blob {missing} is needed but missing")
    unused = sum(size for digest, size in sizes.items() if str(digest) not in used)
    if unused:
        yield Unused("blobs", unused)
    yield from _check_blob_names(store)


def _shifted(progress: Callable[[Hashed], None], done: int, total: int) -> Callable[[int], None]:
    """Progress within one blob as progress of all."""
    return lambda count: progress(Hashed(done + count, total))


def _check_blob_names(store: Store) -> Iterator[Problem]:
    for algorithm in _names(store.root / "blobs"):
        for name in _names(store.root / "blobs" / algorithm):
            try:
                Digest(f"{algorithm}:{name}")
            except InvalidDigest:
                yield Problem("blob", f"blobs/{algorithm}/{name} is not named by a digest")


def _is_intact(path: Path, digest: Digest, progress: Callable[[int], None]) -> bool:
    """Whether the file hashes to its name. A blob that is collected meanwhile was intact."""
    hasher, read = digest.hasher(), 0
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
                read += len(chunk)
                progress(read)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return hasher.hexdigest() == digest.encoded


def _check_layers(store: Store) -> Iterator[Finding]:
    layers = {layer.chain_id: layer for layer in store.metadata.layers()}
    used = used_chains(store.metadata)
    parents = {layer.parent for layer in layers.values()}
    unused = 0
    for layer in layers.values():
        for problem in _layer_problems(store, layer, layers):
            if store.metadata.layer(layer.chain_id) is not None:
                yield Problem("layer", f"layer {layer.chain_id} ({layer.directory}): {problem}")
        if str(layer.chain_id) not in used and layer.chain_id not in parents:
            unused += layer.size
    if unused:
        yield Unused("layers", unused)


def _layer_problems(store: Store, layer: LayerRecord, layers: dict[ChainID, LayerRecord]) -> Iterator[str]:
    expected = layer.parent.then(layer.diff_id) if layer.parent else ChainID(str(layer.diff_id))
    if layer.chain_id != expected:
        yield f"its chain id does not follow from its parent and content (expected {expected})"
    if layer.parent is not None and layer.parent not in layers:
        yield f"its parent {layer.parent} is missing"
    diff = store.layers.diff(layer)
    if not diff.is_dir():
        yield "its files are missing"
        return
    short = store.layers.base / "l" / layer.directory[:12]
    if not short.is_symlink() or short.resolve() != diff.resolve():
        yield f"its short name l/{short.name} does not lead to its files"
    size = _content_size(diff)
    if size not in (layer.size, _expected_size(store, layer)):
        yield f"its files have {size} bytes, {layer.size} were unpacked"


def _content_size(directory: Path) -> int:
    """Bytes of all regular files, each hard-linked file once."""
    seen: set[int] = set()
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            status = os.lstat(os.path.join(parent, name))
            if stat.S_ISREG(status.st_mode) and (status.st_nlink == 1 or status.st_ino not in seen):
                seen.add(status.st_ino)
                total += status.st_size
    return total


def _expected_size(store: Store, layer: LayerRecord) -> int | None:
    """What is left of a tar that has some path twice, read from its blob; None without a blob."""
    from store.compression import PREFIX_SIZE, decompressor, detect  # only when sizes differ
    from store.tar import Kind
    from store.tar_reader import Reader

    digest = store.metadata.blob_of(layer.diff_id)
    if digest is None or not store.content.has(digest):
        return None
    sizes: dict[bytes, int] = {}
    with store.content.path(digest).open("rb") as file, suppress(InvalidArchive):
        codec = decompressor(detect(file.peek(PREFIX_SIZE)))
        pieces = (piece for chunk in iter(lambda: file.read(_CHUNK), b"") for piece in codec.decompress(chunk))
        reader = Reader(lambda _size: next(pieces, b""))
        while (entry := reader.next()) is not None:
            sizes[posixpath.normpath(b"/" + entry.name)] = entry.size if entry.kind is Kind.FILE else 0
    return sum(sizes.values())


def _check_index(store: Store) -> Iterator[Problem]:
    """index.json and oci-layout say what the records say."""
    try:
        layout = json.loads((store.root / "oci-layout").read_bytes())
        index = json.loads((store.root / "index.json").read_bytes())
        listed = {(m["annotations"]["io.containerd.image.name"], m["digest"]) for m in index["manifests"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Problem("index", f"index.json or oci-layout can't be read ({type(error).__name__})")
        return
    if layout.get("imageLayoutVersion") != "1.0.0":
        yield Problem("index", "oci-layout does not name version 1.0.0")
    known = {(record.name, str(record.target.digest)) for record in store.metadata.names()}
    for name, digest in sorted(known - listed):
        yield Problem("index", f"index.json lacks {name} as {digest}")
    for name, digest in sorted(listed - known):
        yield Problem("index", f"index.json names {name} as {digest}, which the store does not")


def _check_leftovers(store: Store) -> Iterator[Finding]:
    """Files of processes that no longer live; each new session sweeps those of the last.

    What exists is listed before who lives, and looked at once more: a process that starts or
    ends meanwhile is no problem.
    """
    ingest, owners, directories = (
        _names(store.root / "ingest"),
        store.metadata.lease_owners(),
        store.layers.directories(),
    )
    kept = FailedSteps(store)
    holders = _live_sessions(store) | {kept.lease(step) for step in kept.ids()} | container_owners(store.metadata)
    known = {layer.directory for layer in store.metadata.layers()} | store.metadata.leased("directory")
    for name in ingest:
        if name.partition("-")[0] not in holders and (store.root / "ingest" / name).exists():
            yield Problem("leftover", f"ingest/{name} belongs to no running process")
    for owner in sorted((owners - holders) & store.metadata.lease_owners()):
        yield Problem("leftover", f"records of the ended session {owner} remain")
    for name in sorted(directories - known):
        if (store.layers.base / name).exists():
            yield Problem("leftover", f"overlay2/{name} is no layer and belongs to no running process")
    trash = sum(_content_size(store.root / "trash" / name) for name in _names(store.root / "trash"))
    if trash:
        yield Unused("discarded layers", trash)


def _live_sessions(store: Store) -> set[str]:
    """Sessions whose lock is held: their process lives."""
    return {name for name in _names(store.root / "leases") if is_held(store.root / "leases" / name)}


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
