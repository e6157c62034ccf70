"""A root filesystem with hostile links at every path that the runtime mounts on or writes to.

The links lead to a directory of the host that a container could reach only by an escape. What
counts is that directory: the start may be refused, or happen inside the root.
"""

from __future__ import annotations

import itertools
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from image.errors import TierceError
from runner.network.modes import NetworkMode
from runner.runtime import defaults
from runner.runtime.spec import Device, Mount
from tests.support.boxes import Box

pytestmark = pytest.mark.root

WRITTEN = (
    *(mount.destination for mount in defaults.MOUNTS),
    *(f"/dev/{name}" for name in ("null", "zero", "tty", "fd", "stdin", "ptmx", "console", "own")),
    "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/data", "/data/deep/er", "/scratch", "/work/dir",
)  # fmt: skip
"""Where defaults, ``-v``, ``--tmpfs``, ``--device``, ``-w`` and the network put something."""


def facts(directory: Path) -> list[tuple[str, int, int, int]]:
    """What is in a directory of the host, and whether it was touched."""
    found = []
    for path in sorted([directory, *directory.rglob("*")]):
        facts = path.lstat()
        found.append((str(path), facts.st_mode, facts.st_size, facts.st_mtime_ns))
    return found


def plant(rootfs: Path, path: str, target: str) -> None:
    place = rootfs / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
    place.symlink_to(target)


@pytest.mark.parametrize(
    ("path", "how"),
    [
        *zip(WRITTEN, itertools.cycle(["absolute", "upward", "by proc"])),
        *(
            (path, "parent")
            for path in WRITTEN
            if path.startswith(("/sys/", "/dev/pts", "/etc/hosts", "/data/", "/work/"))
        ),
    ],
)
def test_nothing_of_the_host_is_touched(path: str, how: str, spoilt_box: Box, tmp_path: Path) -> None:
    outside, source = tmp_path / "outside", tmp_path / "source"
    outside.mkdir()
    source.mkdir()
    (outside / "file").write_text("the host's")
    target = {
        "absolute": str(outside),
        "upward": "../" * 20 + str(outside)[1:],
        "by proc": f"/proc/self/root{outside}",
        "parent": str(outside),
    }[how]
    plant(spoilt_box.rootfs, os.path.dirname(path) if how == "parent" and path.count("/") > 1 else path, target)
    before = facts(outside)
    spec = spoilt_box.spec("sh", "-c", "for p in /data /scratch /work/dir /etc/hosts; do echo x > $p/x; echo x > $p; done; true",
                           terminal=True, cwd="/work/dir")  # fmt: skip
    spec = replace(
        spec,
        root=replace(spec.root, readonly=False),
        devices=(Device("/dev/own", "c", 1, 3),),
        mounts=(
            *spec.mounts,
            Mount("/data", "bind", str(source), ("rbind", "rprivate")),
            Mount("/data/deep/er", "bind", str(source), ("rbind", "rprivate")),
            Mount("/scratch", "tmpfs", "tmpfs", ("nosuid",)),
        ),
    )
    with suppress(TierceError), spoilt_box.started(spec, network=NetworkMode.BRIDGE) as container:
        container.wait()
    assert facts(outside) == before


@pytest.mark.parametrize("path", [*defaults.MASKED_PATHS, *defaults.READONLY_PATHS])
def test_masks_hold_on_a_root_that_brings_links(path: str, spoilt_box: Box) -> None:
    """/sys and /proc are mounts of ours: what the image has there is below them."""
    parent = spoilt_box.rootfs / path.split("/")[1]
    shutil.rmtree(parent)
    parent.mkdir()
    plant(spoilt_box.rootfs, path, "/etc")
    done = spoilt_box.sh(f"readlink {path} || echo hidden")
    assert done.out == "hidden\n"
