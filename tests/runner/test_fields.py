"""Rarer fields of a config.json, seen from inside the container."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from image.errors import InvalidSpec
from runner.runtime.spec import IdMapping, IoPriority, Mount, Namespace, Scheduler
from store.linux import mounts
from tests.support.boxes import Box, make_rootfs

pytestmark = pytest.mark.root


def test_clocks_are_offset(box: Box) -> None:
    spec = box.spec("cat", "/proc/uptime", "/proc/self/timens_offsets")
    spec = replace(spec, namespaces=(*spec.namespaces, Namespace("time")), time_offsets=(("boottime", 10_000_000, 0),))
    out = box.run(spec).out.split()
    assert float(out[0]) > 10_000_000
    assert out[-3:] == ["boottime", "10000000", "0"]


def test_offsets_need_the_namespace(box: Box) -> None:
    with pytest.raises(InvalidSpec, match="timeOffsets"):
        box.run(replace(box.spec("true"), time_offsets=(("boottime", 1, 0),)))


def test_personality_and_scheduling(box: Box) -> None:
    spec = box.spec(
        "sh", "-c", "uname -m; cat /proc/self/sched | grep policy; ionice -p $$; awk '{print $19}' /proc/self/stat"
    )
    process = replace(
        spec.process, scheduler=Scheduler("SCHED_BATCH", nice=7), io_priority=IoPriority("IOPRIO_CLASS_IDLE")
    )
    out = box.run(replace(spec, process=process, personality="LINUX32", seccomp=None)).out
    assert "idle" in out
    assert out.split()[-1] == "7"
    if os.uname().machine == "x86_64":
        assert out.startswith("i686\n")


@pytest.mark.parametrize("policy", ["SCHED_MOON", ""])
def test_unknown_scheduler(box: Box, policy: str) -> None:
    spec = box.spec("true")
    with pytest.raises(InvalidSpec, match=r"process\.scheduler"):
        box.run(replace(spec, process=replace(spec.process, scheduler=Scheduler(policy))))


def test_tmpcopyup(spoilt_box: Box) -> None:
    place = spoilt_box.rootfs / "data"
    (place / "below").mkdir(parents=True)
    (place / "below/file").write_text("content")
    (place / "link").symlink_to("/etc/passwd")
    os.chown(place / "below", 7, 8)
    (place / "below/file").chmod(0o4755)
    spec = spoilt_box.spec(
        "sh", "-c", "cd /data; cat below/file; readlink link; stat -c '%u:%g %a' below below/file; rm -r below"
    )
    mount = Mount("/data", "tmpfs", "tmpfs", ("tmpcopyup", "mode=0755"))
    out = spoilt_box.run(replace(spec, mounts=(*spec.mounts, mount))).out
    assert out == "content/etc/passwd\n7:8 755\n0:0 4755\n"
    assert (place / "below/file").exists()


def test_id_mapped_bind(box: Box, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 1000, 1000)
    maps = (IdMapping(1000, 5000, 10),)
    mount = Mount("/mapped", "bind", str(data), ("rbind",), maps, maps)
    spec = box.spec("sh", "-c", "stat -c %u:%g /mapped; touch /mapped/new")
    spec = replace(spec, mounts=(*spec.mounts, mount))
    own = Box(make_rootfs(tmp_path / "rootfs"), box.root, box.privileges)
    assert own.run(spec).out == "5000:5000\n"


def test_idmap_without_a_mapping(box: Box, tmp_path: Path) -> None:
    spec = box.spec("true")
    with pytest.raises(InvalidSpec, match="idmap without"):
        box.run(replace(spec, mounts=(*spec.mounts, Mount("/x", "bind", str(tmp_path), ("rbind", "idmap")))))


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), "read-only\n"), (("rrw",), "written\n"), (("rrw", "rro"), "read-only\n"), (("rro", "rrw"), "written\n")],
    ids=["as it is", "cleared", "set last", "cleared last"],
)
def test_attributes_of_a_source_are_cleared(box: Box, tmp_path: Path, options: tuple[str, ...], expected: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    mounts.mount(b"tmpfs", os.fsencode(source), b"tmpfs", 0, b"")
    try:
        mounts.mount(b"", os.fsencode(source), b"", mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY, b"")
        mount = Mount("/x", "bind", str(source), ("rbind", *options))
        spec = box.spec("sh", "-c", "touch /x/new 2>/dev/null && echo written || echo read-only")
        assert box.run(replace(spec, mounts=(*spec.mounts, mount))).out == expected
        with pytest.raises(OSError, match="Read-only"):
            (source / "host").touch()
    finally:
        mounts.umount2(os.fsencode(source), 0)
