from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.errors import DigestMismatch, InvalidArchive, InvalidInput, SizeMismatch, StorageError
from image.media_types import oci_layer
from store.compression import compressor
from store.layer_blob import PackedBlob, pack_blob, unpack_blob
from store.unpack import unpack
from tests.support.tars import archive, member, raw, reader
from tests.support.trees import read_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression

pytestmark = pytest.mark.root

COMPRESSIONS: tuple[Compression, ...] = ("uncompressed", "gzip", "zstd")


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """A few MiB in files small and large."""
    path = tmp_path / "upper"
    for number in range(200):
        file = path / f"d{number % 9}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"%d" % number * number * 20)
        os.utime(file, (0, 1000 + number))
    (path / "big").write_bytes(os.urandom(1 << 20) * 5)
    for directory in [path, *path.iterdir()]:
        os.utime(directory, (0, 5))
    return path


def blob_of(tar: bytes, compression: Compression) -> tuple[bytes, Descriptor]:
    stream = compressor(compression)
    data = stream.compress(tar) + stream.flush()
    return data, Descriptor.of(data, oci_layer(compression))


def pack_to_bytes(
    directory: Path, compression: Compression, level: int | None = None, clamp_s: int | None = None
) -> tuple[bytes, PackedBlob]:
    pieces: list[bytes] = []
    packed = pack_blob(directory, pieces.append, compression, level=level, clamp_s=clamp_s)
    return b"".join(pieces), packed


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_was_packed_unpacks_the_same(upper: Path, target: Path, compression: Compression) -> None:
    data, packed = pack_to_bytes(upper, compression)
    assert packed.digest == Digest.of(data)
    assert packed.size == len(data)
    descriptor = Descriptor(oci_layer(compression), packed.digest, packed.size)
    diff_id, unpacked = unpack_blob(io.BytesIO(data).read, descriptor, compression, target)
    assert diff_id == packed.diff_id
    assert (unpacked.entries, unpacked.size) == (packed.entries, packed.unpacked_size)
    ours, theirs = read_tree(upper), read_tree(target)
    assert {path: node for path, node in theirs.items() if path != "."} == {
        path: node for path, node in ours.items() if path != "."
    }


def test_diff_id_is_of_the_tar_whatever_the_compression(upper: Path) -> None:
    tar, packed = pack_to_bytes(upper, "uncompressed")
    assert packed.diff_id == DiffID.of(tar)
    assert str(packed.digest) == str(packed.diff_id)
    assert {pack_to_bytes(upper, compression)[1].diff_id for compression in COMPRESSIONS} == {packed.diff_id}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_same_tree_gives_same_digest(upper: Path, compression: Compression) -> None:
    assert pack_to_bytes(upper, compression) == pack_to_bytes(upper, compression)


def test_level_and_clamp_are_passed_on(upper: Path) -> None:
    sizes = [pack_to_bytes(upper, "gzip", level)[1].size for level in (0, 9)]
    assert sizes[0] > sizes[1]
    assert pack_to_bytes(upper, "gzip", clamp_s=7)[1].diff_id != pack_to_bytes(upper, "gzip")[1].diff_id


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_bytes_after_the_archive_count_for_the_diff_id(target: Path, compression: Compression) -> None:
    tar = archive(member("f")) + bytes(5 << 20) + b"trailing"
    data, descriptor = blob_of(tar, compression)
    diff_id, unpacked = unpack_blob(io.BytesIO(data).read, descriptor, compression, target)
    assert diff_id == DiffID.of(tar)
    assert unpacked.entries == 1


def test_sha512_descriptor(target: Path) -> None:
    tar = archive(member("f"))
    descriptor = Descriptor(oci_layer("uncompressed"), Digest.of(tar, "sha512"), len(tar))
    assert unpack_blob(io.BytesIO(tar).read, descriptor, "uncompressed", target)[0] == DiffID.of(tar)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("at", [0, 0.3, 0.9, 1.0], ids=lambda at: f"at {at:.0%}")
def test_damaged_blob_is_a_digest_mismatch(target: Path, upper: Path, compression: Compression, at: float) -> None:
    data, packed = pack_to_bytes(upper, compression)
    descriptor = Descriptor(oci_layer(compression), packed.digest, packed.size)
    damaged = bytearray(data)
    damaged[int((len(data) - 1) * at)] ^= 0x55
    with pytest.raises(DigestMismatch) as caught:
        unpack_blob(io.BytesIO(bytes(damaged)).read, descriptor, compression, target)
    assert caught.value.expected == packed.digest


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_short_blob_is_a_size_mismatch(target: Path, upper: Path, compression: Compression) -> None:
    data, packed = pack_to_bytes(upper, compression)
    descriptor = Descriptor(oci_layer(compression), packed.digest, packed.size)
    with pytest.raises(SizeMismatch):
        unpack_blob(io.BytesIO(data[: len(data) // 2]).read, descriptor, compression, target)


def test_no_more_is_read_than_the_size_and_one_byte(target: Path) -> None:
    data, descriptor = blob_of(archive(member("f")), "gzip")
    taken = 0

    def endless(size: int) -> bytes:
        nonlocal taken
        piece = data[taken : taken + size].ljust(size, b"\0")
        taken += size
        return piece

    with pytest.raises(SizeMismatch):
        unpack_blob(endless, descriptor, "gzip", target)
    assert taken == descriptor.size + 1


def test_hostile_but_genuine_blob_is_an_invalid_archive(target: Path) -> None:
    data, descriptor = blob_of(archive(raw(b"../f")) + bytes(9 << 20), "gzip")
    with pytest.raises(InvalidArchive, match="leaves the root"):
        unpack_blob(io.BytesIO(data).read, descriptor, "gzip", target)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_genuine_blob_with_another_compression_is_named(target: Path, compression: Compression) -> None:
    data, descriptor = blob_of(archive(member("f")), "uncompressed")
    with pytest.raises(InvalidArchive, match=f"{compression} stream is damaged"):
        unpack_blob(io.BytesIO(data).read, descriptor, compression, target)


def test_what_read_raises_comes_through(target: Path, upper: Path) -> None:
    data, packed = pack_to_bytes(upper, "gzip")
    source = io.BytesIO(data)

    def failing(size: int) -> bytes:
        if source.tell() > len(data) // 2:
            raise StorageError("the disk went away")
        return source.read(size)

    with pytest.raises(StorageError, match="the disk went away"):
        unpack_blob(failing, Descriptor(oci_layer("gzip"), packed.digest, packed.size), "gzip", target)


def test_read_error_of_the_blob_is_not_the_targets(target: Path) -> None:
    def failing(_size: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(StorageError, match=r"cannot read layer blob sha256:[0-9a-f]{64}: input/output error"):
        unpack_blob(failing, blob_of(archive(), "gzip")[1], "gzip", target)


def test_interrupt_while_unpacking_ends_the_thread(target: Path, upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, packed = pack_to_bytes(upper, "gzip")
    count = 0

    def interrupt(*_args: object, **_options: object) -> None:
        nonlocal count
        count += 1
        if count == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "utime", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack_blob(io.BytesIO(data).read, Descriptor(oci_layer("gzip"), packed.digest, packed.size), "gzip", target)


def failing_write(after: int) -> Callable[[bytes], None]:
    written = 0

    def write(data: bytes) -> None:
        nonlocal written
        written += len(data)
        if written > after:
            raise StorageError("cannot write the blob: no space left on device")

    return write


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("after", [0, 500_000], ids=["at once", "later"])
def test_what_write_raises_comes_through(upper: Path, compression: Compression, after: int) -> None:
    with pytest.raises(StorageError, match="cannot write the blob: no space left on device"):
        pack_blob(upper, failing_write(after), compression)


def test_write_error_of_the_blob_is_not_the_trees(upper: Path) -> None:
    def failing(_data: bytes) -> None:
        raise OSError(errno.ENOSPC, "of the blob's disk")

    with pytest.raises(OSError, match="of the blob's disk"):
        pack_blob(upper, failing, "uncompressed")


def test_what_cannot_be_packed_ends_the_thread(upper: Path) -> None:
    (upper / "z").mkdir()
    (upper / "z/.wh.x").touch()
    with pytest.raises(InvalidInput, match="mean deletion"):
        pack_blob(upper, lambda _: None, "gzip")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_memory_does_not_grow_with_the_layer(tmp_path: Path, target: Path, compression: Compression) -> None:
    upper = tmp_path / "large"
    upper.mkdir()
    with open(upper / "zeros", "wb") as file:
        file.truncate(400 << 20)
    tracemalloc.start()
    try:
        data, packed = pack_to_bytes(upper, compression)
        descriptor = Descriptor(oci_layer(compression), packed.digest, packed.size)
        unpack_blob(io.BytesIO(data).read, descriptor, compression, target)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert packed.unpacked_size == 400 << 20
    assert peak < 64 << 20


def test_a_slow_writer_holds_the_packing_back(tmp_path: Path) -> None:
    with open(tmp_path / "zeros", "wb") as file:
        file.truncate(200 << 20)
    tracemalloc.start()
    try:
        pack_blob(tmp_path, lambda _: time.sleep(0.003), "uncompressed")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


def test_whiteouts_are_chosen_by_the_caller(target: Path) -> None:
    (target / "x").touch()
    data, descriptor = blob_of(archive(member(".wh.x")), "gzip")
    unpack_blob(io.BytesIO(data).read, descriptor, "gzip", target, whiteouts="apply")
    assert os.listdir(target) == []


def test_agrees_with_separate_steps(upper: Path, tmp_path: Path) -> None:
    tar, packed = pack_to_bytes(upper, "uncompressed")
    apart = tmp_path / "apart"
    apart.mkdir()
    unpack(reader(tar), apart, whiteouts="overlay")
    assert hashlib.sha256(tar).hexdigest() == packed.diff_id.encoded
    assert replace(read_tree(apart)["big"], mtime_ns=0) == replace(read_tree(upper)["big"], mtime_ns=0)
