"""A disk that is full while a container writes and while it becomes an image: nothing is lost but what had no room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fixtures.registries import PLAIN, emulate
from tests.end_to_end.test_bad_input import names, told
from tests.support.cli import Tierce
from tests.support.tiny_image import tiny_image

pytestmark = pytest.mark.root

_LINE, _LINES = "0123456789abcdef", 2_000_000


@pytest.fixture
def small(tmp_path: Path, busybox_archive: Path) -> Iterator[Tierce]:
    """A store with busybox on a disk of 14 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14m", "none", disk], check=True)
    try:
        tierce = Tierce(disk / "root", {"TIERCE_RUNTIME_DIR": str(tmp_path / "small-run")})
        tierce("load", "-q", "-i", busybox_archive)
        yield tierce
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(tierce: Tierce, left: int = 200 << 10) -> Path:
    """A file that leaves the disk this many bytes; 200 kB are enough for the database."""
    path = tierce.root.parent / "filler"
    with path.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(1 << 20 if left else 4096))
        file.truncate(file.tell() - left)
    return path


def test_a_log_loses_lines_and_nothing_else(small: Tierce) -> None:
    script = f"yes {_LINE} | head -n {_LINES}; echo last; exit 6"
    small("run", "--detach", "--name", "box", "--network", "none", "busybox", "sh", "-c", script)
    assert small("wait", "box").stdout == "6\n"
    lines = small("logs", "box").stdout.splitlines()
    assert 0 < len(lines) < _LINES
    assert set(lines) <= {_LINE, "last"}
    small("rm", "box")
    assert small("run", "--rm", "--network", "none", "busybox", "echo", "again").stdout == "again\n"
    small("system", "check")


def test_commit_leaves_the_store_as_it_was(small: Tierce) -> None:
    before = names(small)
    script = "dd if=/dev/urandom of=/big bs=1M count=2 2>/dev/null"
    small("run", "--name", "box", "--network", "none", "busybox", "sh", "-c", script)
    filler = fill(small)
    told(small.attempt("commit", "box", "made"), "no space left on device")
    assert names(small) == before
    filler.unlink()
    small("commit", "box", "made")
    small("rm", "box")
    size = small("run", "--rm", "--network", "none", "made", "stat", "-c", "%s", "/big").stdout
    assert size == f"{2 << 20}\n"
    small("system", "check")


def free(tierce: Tierce) -> int:
    status = os.statvfs(tierce.root)
    return status.f_bavail * status.f_frsize


@pytest.mark.parametrize(
    "words", [("pull", "-q", "{}"), ("copy", "-q", "docker://{}", "store:bomb")], ids=["pull", "copy"]
)
def test_a_layer_that_inflates_to_more_than_the_disk_has(small: Tierce, words: tuple[str, ...]) -> None:
    """A hundred kilobytes that would be a hundred megabytes: refused while others still have room."""
    before, room = names(small), free(small)
    bomb = tiny_image({f"file{number}": bytes(10 << 20) for number in range(10)})
    with emulate(PLAIN) as registry:
        registry.add_image("bomb", "1", bomb.manifest.media_type, bomb.manifest.raw, bomb.blobs)
        call = [word.format(f"{registry.host}/bomb:1") for word in words]
        told(small.attempt(*call), "it would leave less than")
        assert names(small) == before
        assert free(small) >= room - (1 << 20)  # of ten, but for what the database writes ahead
    small("system", "check")


def test_a_blob_that_says_it_is_larger_than_the_disk(small: Tierce) -> None:
    """It is refused before a byte of it is asked for."""
    image = tiny_image({"file": b"x"})
    layer = image.manifest.layers[0]
    raw = image.manifest.raw.replace(f'"size":{layer.size}'.encode(), b'"size":1000000000000')
    assert raw != image.manifest.raw
    with emulate(PLAIN) as registry:
        registry.add_image("large", "1", image.manifest.media_type, raw, image.blobs)
        told(small.attempt("pull", "-q", f"{registry.host}/large:1"), "it would leave less than")
        assert registry.seen(f"GET .*{layer.digest}") == []


def test_without_a_byte_left_it_says_what_to_do(small: Tierce) -> None:
    filler = fill(small, left=0)
    for argv in (("tag", "busybox", "other"), ("create", "--network", "none", "busybox"), ("rmi", "busybox")):
        told(small.attempt(*argv), "no space left on device: free space there")
    done = small.attempt("run", "--rm", "--network", "none", "busybox", "true")
    told(done, "no space left on device: free space there", code=125)
    filler.unlink()
    assert small("run", "--rm", "--network", "none", "busybox", "echo", "again").stdout == "again\n"
    small("system", "check")
