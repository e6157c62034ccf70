"""What is written stops before the disk is full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from image.errors import StorageError
from store.room import Room

MIB = 1 << 20


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk of 1000 MiB; [0] are the MiB free and [1] the inodes, of 1000."""
    state = [500, 500]

    def statvfs(_path: object) -> os.statvfs_result:
        return os.statvfs_result((MIB, MIB, 1000, state[0], state[0], 1000, state[1], state[1], 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    return state


def test_a_hundredth_of_the_disk_stays(disk: list[int], tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.check(490 * MIB, "storing x")
    with pytest.raises(StorageError, match=f"^storing x stopped: it would leave less than {10 * MIB} bytes free on"):
        room.check(491 * MIB, "storing x")
    disk[0] = 9
    with pytest.raises(StorageError):
        room.check(0, "storing x")


@pytest.mark.parametrize("keep_free", [0, 1, 600 * MIB])
def test_as_much_as_is_said(disk: list[int], tmp_path: Path, keep_free: int) -> None:
    room = Room(tmp_path, keep_free)
    if keep_free == 600 * MIB:
        with pytest.raises(StorageError, match="TIERCE_KEEP_FREE"):
            room.check(0, "storing x")
    else:
        room.check(499 * MIB, "storing x")


def test_inodes_stay_too(disk: list[int], tmp_path: Path) -> None:
    disk[1] = 9
    with pytest.raises(StorageError, match="hardly any inodes"):
        Room(tmp_path).check(0, "storing x")
    Room(tmp_path, 0).check(0, "storing x")


def test_a_stream_without_end_is_stopped(disk: list[int], tmp_path: Path) -> None:
    def endless(size: int) -> bytes:
        disk[0] -= 1
        return bytes(size)

    read = Room(tmp_path).counted(endless, "unpacking x")
    with pytest.raises(StorageError, match="unpacking x stopped"):
        while True:
            read(MIB)
    assert disk[0] == 10
