"""Ways out of a container that other runtimes have had. See also ``test_enter.TestEscapes``."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from image.errors import TierceError
from runner.runtime.spec import Mount
from tests.support.boxes import Box

pytestmark = pytest.mark.root

_HERE, _RENAME_EXCHANGE = -100, 2


@contextmanager
def flipping(place: Path, target: str) -> Iterator[None]:
    """``place`` is a directory and a link to ``target`` in turn, as fast as can be."""
    link, done = place.with_name("link"), threading.Event()
    place.mkdir()
    link.symlink_to(target)
    exchange = ctypes.CDLL(None).renameat2

    def flip() -> None:
        while not done.is_set():
            exchange(_HERE, bytes(place), _HERE, bytes(link), _RENAME_EXCHANGE)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("kind", ["tmpfs", "bind", "file"])
def test_a_mount_target_that_becomes_a_link_to_the_host(spoilt_box: Box, tmp_path: Path, kind: str) -> None:
    """CVE-2021-30465: a volume that a second container changes while the first one is made."""
    outside, source = tmp_path / "outside", tmp_path / "source"
    (outside / "below").mkdir(parents=True)
    (outside / "file").write_text("the host's")
    source.mkdir()
    (source / "file").write_text("the container's")
    mount = {
        "tmpfs": Mount("/volume/below", "tmpfs", "tmpfs"),
        "bind": Mount("/volume/below", "bind", str(source), ("rbind",)),
        "file": Mount("/volume/file", "bind", str(source / "file"), ("bind",)),
    }[kind]
    spec = spoilt_box.spec("sh", "-c", "touch /volume/below/new; echo changed > /volume/file")
    spec = replace(spec, mounts=(*spec.mounts, mount))
    with flipping(spoilt_box.rootfs / "volume", "../" * 20 + str(outside)[1:]):
        for _ in range(8):
            with suppress(TierceError):  # a name that is gone at the wrong moment
                spoilt_box.run(spec)
    assert sorted(path.name for path in outside.rglob("*")) == ["below", "file"]
    assert (outside / "file").read_text() == "the host's"
    assert str(outside) not in Path("/proc/self/mountinfo").read_text()


def test_devices_are_not_made_outside(spoilt_box: Box, tmp_path: Path) -> None:
    """With a /dev of the image's own that is a link, and no mount on it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (spoilt_box.rootfs / "dev").rmdir()
    (spoilt_box.rootfs / "dev").symlink_to("../" * 20 + str(outside)[1:])
    spec = spoilt_box.spec("true")
    bare = tuple(mount for mount in spec.mounts if not mount.destination.startswith("/dev"))
    with suppress(TierceError):
        spoilt_box.run(replace(spec, mounts=bare))
    assert list(outside.iterdir()) == []


def test_a_null_device_of_the_images_own_masks_nothing(spoilt_box: Box) -> None:
    """CVE-2025-31133: masks are bind mounts of /dev/null, which must be the null device."""
    (spoilt_box.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    spec = spoilt_box.spec("sh", "-c", "cat /proc/keys")
    bare = tuple(mount for mount in spec.mounts if not mount.destination.startswith("/dev"))
    with pytest.raises((TierceError, OSError)):
        spoilt_box.run(replace(spec, mounts=bare))


def test_a_multiplexer_of_the_images_own_is_no_terminal(spoilt_box: Box) -> None:
    """A console is made of /dev/pts/ptmx: a file in its place is refused."""
    (spoilt_box.rootfs / "dev/pts").mkdir()
    (spoilt_box.rootfs / "dev/pts/ptmx").write_text("")
    spec = spoilt_box.spec("true", terminal=True)
    bare = tuple(mount for mount in spec.mounts if not mount.destination.startswith("/dev"))
    with pytest.raises(TierceError), spoilt_box.started(replace(spec, mounts=bare)):
        pass


def test_pid_one_holds_nothing_of_the_host(box: Box) -> None:
    assert box.sh("readlink /proc/1/root; readlink /proc/1/cwd; ls /proc/1/fd; true").out.split() == [
        "/",
        "/",
        "0",
        "1",
        "2",
    ]
