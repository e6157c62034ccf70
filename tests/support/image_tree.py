"""Read an image's files and configuration, by rules of its own and without touching the disk.

From an OCI layout, a docker-archive or a root directory. Layers are applied in memory:
a tree maps each path to what is there, and contents are kept as hashes. Nothing is imported
from Tierce, so that this is a second opinion on what Tierce wrote.

Spec: image-spec "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import zstandard

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Inode:
    """One file of whatever kind, without its names."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    mtime: int = 0


ROOT: Mapping[str, Inode] = {"": Inode("directory", 0o755, 0, 0)}
"""A tree without anything in it."""


@dataclass(slots=True)
class Image:
    """A file tree by path (no leading slash) and the configuration document."""

    tree: dict[str, Inode]
    config: dict[str, Any]


def oci_layout(directory: Path, name: str | None = None) -> Image:
    """The image called ``name`` in an OCI layout, or its only one.

    ``name`` is the value of ``org.opencontainers.image.ref.name``. Of an index it takes the first image.
    """

    def blob(descriptor: dict[str, Any]) -> Path:
        algorithm, _, encoded = descriptor["digest"].partition(":")
        return directory / "blobs" / str(algorithm) / str(encoded)

    listed = json.loads((directory / "index.json").read_bytes())["manifests"]
    ref_name = "org.opencontainers.image.ref.name"
    chosen = [item for item in listed if name is None or item.get("annotations", {}).get(ref_name) == name]
    assert chosen, f"no {name} in {directory}: {[item.get('annotations') for item in listed]}"
    document = json.loads(blob(chosen[0]).read_bytes())
    while "manifests" in document:
        document = json.loads(blob(document["manifests"][0]).read_bytes())
    config = json.loads(blob(document["config"]).read_bytes())
    return _apply_layers((blob(layer).open for layer in document["layers"]), config)


def docker_archive(path: Path) -> Image:
    """The first image in a tar that ``docker save`` or its like wrote."""
    with tarfile.open(path) as archive:

        def member(name: str) -> IO[bytes]:
            found = archive.extractfile(name)
            assert found is not None, f"{name} in {path} is not a file"
            return found

        entry = json.load(member("manifest.json"))[0]
        config = json.load(member(entry["Config"]))
        return _apply_layers((_opener(member, name) for name in entry["Layers"]), config)


def _opener(member: Callable[[str], IO[bytes]], name: str) -> Callable[[str], IO[bytes]]:
    return lambda _mode: member(name)


def _apply_layers(layers: Iterable[Callable[[str], IO[bytes]]], config: dict[str, Any]) -> Image:
    tree = dict(ROOT)
    for open_layer in layers:
        with (
            open_layer("rb") as stream,
            _decompressed(stream) as plain,
            tarfile.open(fileobj=plain, mode="r|") as layer,
        ):
            tree = apply_layer(tree, layer)
    return Image(tree, config)


@contextmanager
def _decompressed(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    start = stream.read(4)
    stream.seek(0)
    if start.startswith(b"\x1f\x8b"):
        yield cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    elif start == b"\x28\xb5\x2f\xfd":
        yield zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
    else:
        yield stream


def tree_of_tar(path: Path) -> dict[str, Inode]:
    """The tree that is in a tar."""
    with tarfile.open(path) as tar:
        return apply_layer(ROOT, tar)


def apply_layer(lower: Mapping[str, Inode], layer: tarfile.TarFile) -> dict[str, Inode]:
    """The tree after a layer: whiteouts hide what is below, never what the same layer brings."""
    added: list[tuple[str, tarfile.TarInfo, str]] = []
    tree = dict(lower)
    for entry in layer:
        path = _clean(entry.name)
        parent, _, name = path.rpartition("/")
        if name == _OPAQUE:
            _remove_below(tree, _resolve(tree, parent))
        elif name.startswith(_WHITEOUT):
            _remove(tree, _join(_resolve(tree, parent), name.removeprefix(_WHITEOUT)))
        else:
            added.append((path, entry, _content_hash(layer, entry)))
    for path, entry, sha256 in added:
        _add(tree, path, entry, sha256)
    return tree


def _add(tree: dict[str, Inode], path: str, entry: tarfile.TarInfo, sha256: str) -> None:
    parent, _, name = path.rpartition("/")
    place = _join(_make_directories(tree, _resolve(tree, parent)), name)
    if entry.islnk():
        _remove(tree, place)
        tree[place] = tree[_resolve_parent(tree, _clean(entry.linkname))]
        return
    if not (entry.isdir() and place in tree and tree[place].kind == "directory"):
        _remove(tree, place)
    tree[place] = _inode_of(entry, sha256)


def _inode_of(entry: tarfile.TarInfo, sha256: str) -> Inode:
    prefix = "SCHILY.xattr."
    xattrs = {key[len(prefix) :]: value for key, value in entry.pax_headers.items() if key.startswith(prefix)}
    kinds = {tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "symlink", tarfile.CHRTYPE: "character device",
             tarfile.BLKTYPE: "block device", tarfile.FIFOTYPE: "fifo"}  # fmt: skip
    kind = "file" if entry.isreg() else kinds[entry.type]
    return Inode(
        kind=kind,
        mode=0o777 if kind == "symlink" else entry.mode & 0o7777,
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size if kind == "file" else 0,
        target=entry.linkname if kind == "symlink" else "",
        device=(entry.devmajor, entry.devminor) if "device" in kind else (0, 0),
        xattrs=xattrs,
        sha256=sha256,
        mtime=int(entry.mtime),
    )


def _content_hash(layer: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    content = layer.extractfile(entry) if entry.isreg() else None
    if content is None:
        return ""
    whole = hashlib.sha256()
    while block := content.read(1 << 20):
        whole.update(block)
    return whole.hexdigest()


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in {"", "."})


def _join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name


def _resolve(tree: Mapping[str, Inode], path: str, *, budget: int = 40) -> str:
    """``path`` with every symlink in it followed, as the kernel does below the image's root."""
    done: list[str] = []
    rest = path.split("/")
    while rest:
        part = rest.pop(0)
        if part in {"", "."}:
            continue
        if part == "..":
            done = done[:-1]
            continue
        found = tree.get("/".join([*done, part]))
        if found is None or found.kind != "symlink":
            done.append(part)
            continue
        budget -= 1
        assert budget, f"too many symlinks in {path}"
        done = [] if found.target.startswith("/") else done
        rest = found.target.split("/") + rest
    return "/".join(done)


def _resolve_parent(tree: Mapping[str, Inode], path: str) -> str:
    parent, _, name = path.rpartition("/")
    return _join(_resolve(tree, parent), name)


def _make_directories(tree: dict[str, Inode], path: str) -> str:
    parts = path.split("/") if path else []
    for depth in range(1, len(parts) + 1):
        tree.setdefault("/".join(parts[:depth]), Inode("directory", 0o755, 0, 0))
    return path


def _remove(tree: dict[str, Inode], path: str) -> None:
    inode = tree.pop(path, None)
    if inode is not None and inode.kind == "directory":
        _remove_below(tree, path)


def _remove_below(tree: dict[str, Inode], path: str) -> None:
    prefix = f"{path}/" if path else ""
    for hidden in [name for name in tree if name and name.startswith(prefix)]:
        del tree[hidden]


def root_directory(root: Path, config: Mapping[str, Any] | None = None) -> Image:
    """A file tree on disk, for example a mounted image; run as root to read all of it."""
    tree: dict[str, Inode] = {}
    inodes: dict[tuple[int, int], Inode] = {}
    for directory, subdirectories, files in os.walk(root):
        for name in [*subdirectories, *files]:
            path = Path(directory, name)
            status = path.lstat()
            inode = inodes.setdefault((status.st_dev, status.st_ino), _inode_on_disk(path, status))
            tree[str(path.relative_to(root))] = inode
    status = root.lstat()
    tree[""] = _inode_on_disk(root, status)
    return Image(tree, dict(config or {}))


def _inode_on_disk(path: Path, status: os.stat_result) -> Inode:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
             stat.S_IFCHR: "character device", stat.S_IFBLK: "block device", stat.S_IFSOCK: "socket"}  # fmt: skip
    kind = kinds[stat.S_IFMT(status.st_mode)]
    names = os.listxattr(path, follow_symlinks=False)
    inode = Inode(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        target=os.readlink(path) if kind == "symlink" else "",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if "device" in kind else (0, 0),
        xattrs={
            name: os.getxattr(path, name, follow_symlinks=False).decode("utf-8", "surrogateescape") for name in names
        },
        mtime=int(status.st_mtime),
    )
    if kind != "file":
        return inode
    with path.open("rb") as content:
        return replace(inode, size=status.st_size, sha256=hashlib.file_digest(content, "sha256").hexdigest())
