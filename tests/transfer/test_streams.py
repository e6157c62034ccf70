"""Blocks that verify themselves, whatever is slow: the reader, the hash or the consumer."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image.descriptor import Descriptor
from image.errors import DigestMismatch, SizeMismatch
from transfer import streams
from transfer.streams import BLOCK_SIZE, HashThread, VerifiedBlocks

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = bytes(range(256)) * 30_000


def reader(data: bytes, most: int = 1 << 30) -> Callable[[memoryview], int]:
    source = io.BytesIO(data)
    return lambda view: source.readinto(view[:most])


def collect(data: bytes, descriptor: Descriptor, most: int = 1 << 30) -> bytes:
    with VerifiedBlocks(reader(data, most), descriptor) as blocks:
        return b"".join(bytes(block) for block in blocks)


class _SlowHash:
    """A hash that is far behind the reader."""

    name = "sha256"

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, data: memoryview) -> None:
        time.sleep(0.02)
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def test_buffer_is_not_refilled_before_it_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_hasher: Any) -> HashThread:
        return HashThread(_SlowHash())  # type: ignore[arg-type]

    monkeypatch.setattr(streams, "HashThread", slow)
    assert collect(DATA, Descriptor.of(DATA, "x")) == DATA


@settings(deadline=None)
@given(st.integers(0, 3 * BLOCK_SIZE), st.integers(1, 2 * BLOCK_SIZE))
def test_any_size_by_any_pieces(size: int, most: int) -> None:
    data = DATA[:size]
    assert collect(data, Descriptor.of(data, "x"), max(most, size // 50 + 1)) == data


@pytest.mark.parametrize("size", [10, BLOCK_SIZE, 3 * BLOCK_SIZE])
class TestWrongContent:
    def test_short(self, size: int) -> None:
        with pytest.raises(SizeMismatch):
            collect(DATA[: size - 1], Descriptor.of(DATA[:size], "x"))

    def test_long_is_read_one_byte_too_far_at_most(self, size: int) -> None:
        source = io.BytesIO(DATA)
        with (
            pytest.raises(SizeMismatch),
            VerifiedBlocks(source.readinto, Descriptor.of(DATA[:size], "x")) as blocks,
        ):
            list(blocks)
        assert source.tell() == size + 1

    def test_other(self, size: int) -> None:
        with pytest.raises(DigestMismatch):
            collect(b"X" + DATA[1:size], Descriptor.of(DATA[:size], "x"))


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    with VerifiedBlocks(reader(DATA), Descriptor.of(DATA, "x")) as blocks:
        next(blocks)
    assert threading.active_count() == before
