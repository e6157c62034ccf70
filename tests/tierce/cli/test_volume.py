"""Volumes from the command line: made, shown, used by containers, removed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.dockerd import Docker

root = pytest.mark.root
RUN = ("run", "--rm", "--network", "none")


def names(tierce: Tierce, *flags: str) -> list[str]:
    return tierce("volume", "ls", "-q", *flags).stdout.split()


def test_make_list_inspect_remove(tierce: Tierce) -> None:
    assert tierce("volume", "create", "--label", "project=web", "data").stdout == "data\n"
    assert tierce("volume", "create", "data").stdout == "data\n"
    unnamed = tierce("volume", "create").stdout.strip()
    assert tierce("volume", "ls").stdout.splitlines()[0] == "DRIVER    VOLUME NAME"
    assert names(tierce, "--filter", "label=project") == ["data"]
    assert names(tierce, "--filter", "name=at") == ["data"]
    assert names(tierce, "--filter", "driver=other") == []
    assert sorted(names(tierce, "--filter", "dangling=true")) == sorted(["data", unnamed])
    assert tierce("volume", "ls", "--format", "{{.Name}} {{.Labels}}", "-f", "name=data").stdout == "data project=web\n"
    assert tierce("volume", "inspect", "-f", "{{.Mountpoint}}", "data").stdout == f"{tierce.root}/volumes/data/_data\n"
    assert tierce("volume", "rm", "data").stdout == "data\n"
    assert names(tierce) == [unnamed]


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (("inspect", "absent"), 1, "no such volume: absent"),
        (("rm", "absent"), 1, "no such volume: absent"),
        (("rm", "-f", "absent"), 0, ""),
        (("rm", "../x"), 1, "no such volume"),
        (("create", "-d", "nfs", "data"), 1, "volume driver 'nfs' is not supported"),
        (("create", "a/b"), 1, "invalid volume name"),
        (("create", "-o", "size=1g", "data"), 1, "invalid option 'size'"),
        (("ls", "-f", "colour=red"), 1, "filter 'colour' is not known"),
        (("prune",), 1, "has been cancelled"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input(argv: tuple[str, ...], code: int, error: str, tierce: Tierce) -> None:
    done = tierce.attempt("volume", *argv, stdin="")
    assert done.code == code, str(done)
    assert error in done.stderr
    assert "Traceback" not in done.stderr


def test_prune_takes_the_anonymous_ones(tierce: Tierce) -> None:
    for name in ("data", "kept"):
        tierce("volume", "create", "--label", name, name)
    unnamed = tierce("volume", "create").stdout.strip()
    pruned = tierce("volume", "prune", "-f").stdout
    assert pruned == f"Deleted Volumes:\n{unnamed}\n\nTotal reclaimed space: 0B\n"
    tierce("volume", "prune", "-af", "--filter", "label!=kept")
    assert names(tierce) == ["kept"]


@root
def test_inspected_as_docker_does(tierce: Tierce, docker: Docker) -> None:
    make = ("volume", "create", "--label", "a=b", "tierce-shape")
    docker(*make)
    tierce(*make)
    try:
        (theirs,) = json.loads(docker("volume", "inspect", "tierce-shape"))
        (ours,) = json.loads(tierce("volume", "inspect", "tierce-shape").stdout)
    finally:
        docker("volume", "rm", "tierce-shape")
    for document in (theirs, ours):
        document["Mountpoint"] = "/".join(Path(document["Mountpoint"]).parts[-3:])
        document["CreatedAt"] = len(document["CreatedAt"])
        document["Options"] = document["Options"] or None  # an empty object in docker 20.10, null in 28
    assert ours == theirs


# --- in containers -------------------------------------------------------------------------


@root
def test_two_containers_share_a_volume_and_it_stays_while_they_run(tierce_with_busybox: Tierce) -> None:
    tierce = tierce_with_busybox
    waiting = "echo from-first > /d/a; echo ready; while [ ! -e /d/b ]; do sleep 0.05; done; cat /d/b"
    with tierce.start(*RUN, "-v", "data:/d", "busybox", "sh", "-c", waiting) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        refused = tierce.attempt("volume", "rm", "data")
        assert (refused.code, "volume is in use" in refused.stderr) == (1, True)
        assert names(tierce, "-f", "dangling=false") == ["data"]
        assert tierce("volume", "prune", "-af").stdout == "Total reclaimed space: 0B\n"
        script = "cat /d/a; echo from-second > /d/tmp; mv /d/tmp /d/b"
        assert tierce(*RUN, "-v", "data:/d", "busybox", "sh", "-c", script).stdout == "from-first\n"
        assert first.stdout.read() == "from-second\n"
        assert first.wait() == 0
    tierce("volume", "rm", "data")


@root
def test_a_killed_run_holds_no_volume(tierce_with_busybox: Tierce) -> None:
    tierce = tierce_with_busybox
    with tierce.start(*RUN, "-v", "data:/d", "busybox", "sh", "-c", "echo ready; sleep 100") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    subprocess.run(tierce.argv(*RUN, "busybox", "true"), env=tierce.env(), check=True)  # sweeps what was left
    tierce("volume", "rm", "data")


@root
def test_copy_up_of_an_image_path(tierce_with_busybox: Tierce) -> None:
    tierce = tierce_with_busybox
    assert "passwd" in tierce(*RUN, "-v", "etc:/etc", "busybox", "ls", "/etc").stdout
    tierce(*RUN, "-v", "etc:/x", "busybox", "sh", "-c", "rm -r /x/*; echo own > /x/own")
    assert "own" in tierce(*RUN, "-v", "etc:/etc", "busybox", "cat", "/etc/own").stdout
    assert "passwd" not in tierce(*RUN, "-v", "bare:/etc:nocopy", "busybox", "ls", "/etc").stdout.split()
    assert tierce(*RUN, "--mount", "src=etc,dst=/x,volume-subpath=own,ro", "busybox", "cat", "/x").stdout == "own\n"


@root
@pytest.mark.parametrize("form", ["short", "long"])
def test_read_only(form: str, tierce_with_busybox: Tierce) -> None:
    flag = ("-v", "data:/d:ro") if form == "short" else ("--mount", "type=volume,src=data,dst=/d,readonly")
    done = tierce_with_busybox.attempt(*RUN, *flag, "busybox", "touch", "/d/x")
    assert "Read-only file system" in done.stderr


@root
def test_anonymous_volumes_go_with_the_container(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    tierce = tierce_with_busybox
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN mkdir /v && echo image > /v/file\nVOLUME /v /empty\n")
    tierce("build", "-q", "--network", "none", "-t", "with-volumes", tmp_path)
    script = "cat /v/file; echo changed > /v/file; grep -c -e ' /v ' -e ' /empty ' /proc/mounts"
    for _ in range(2):
        assert tierce(*RUN, "with-volumes", "sh", "-c", script).stdout == "image\n2\n"
        assert names(tierce) == []
    assert tierce.attempt(*RUN, "with-volumes", "absent").code == 127
    assert names(tierce) == []
    tierce(*RUN, "-v", "kept:/v", "with-volumes", "sh", "-c", script)
    assert names(tierce) == ["kept"]


@root
def test_a_volume_of_options_is_mounted_so(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    tierce = tierce_with_busybox
    tierce("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=700", "scratch")
    script = "df /d | tail -1 | awk '{print $2}'; stat -c %a /d"
    assert tierce(*RUN, "-v", "scratch:/d", "busybox", "sh", "-c", script).stdout == "1024\n700\n"
    (tmp_path / "there").mkdir()
    tierce("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}/there", "-o", "o=bind", "place")
    tierce(*RUN, "-v", "place:/d", "busybox", "touch", "/d/x")
    assert os.listdir(tmp_path / "there") == ["x"]


@root
def test_binds(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    tierce = tierce_with_busybox
    tierce(*RUN, "-v", f"{tmp_path}/made/here:/d", "busybox", "touch", "/d/x")
    assert os.listdir(tmp_path / "made/here") == ["x"]
    assert tierce(*RUN, "-v", "./made:/d", "busybox", "ls", "/d", cwd=tmp_path).stdout == "here\n"
    (tmp_path / "file").write_text("one file\n")
    assert tierce(*RUN, "-v", f"{tmp_path}/file:/etc/x", "busybox", "cat", "/etc/x").stdout == "one file\n"
    done = tierce.attempt(*RUN, "--mount", f"type=bind,src={tmp_path}/absent,dst=/d", "busybox", "true")
    assert (done.code, "bind source path does not exist" in done.stderr) == (125, True)
    assert not (tmp_path / "absent").exists()


@root
@pytest.mark.parametrize(("word", "seen"), [("rslave", True), ("rshared", True), ("rprivate", False)])
def test_propagation(word: str, seen: bool, tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    """A mount that the host makes below the source while the container runs."""
    tierce, place = tierce_with_busybox, tmp_path / "shared"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        subprocess.run(["mount", "--make-shared", place], check=True)
        (place / "sub").mkdir()
        script = "echo ready; read go; ls /d/sub"
        with tierce.start(*RUN, "-i", "-v", f"{place}:/d:{word}", "busybox", "sh", "-c", script) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place / "sub"], check=True)
            (place / "sub/late").touch()
            out, _ = process.communicate("go\n")
        assert (out == "late\n") is seen
        subprocess.run(["umount", place / "sub"], check=True)
    finally:
        subprocess.run(["umount", "-R", place], check=True)


@root
def test_a_subpath_never_leaves_its_volume(tierce_with_busybox: Tierce) -> None:
    tierce = tierce_with_busybox
    tierce(
        *RUN,
        "-v",
        "data:/d",
        "busybox",
        "sh",
        "-c",
        "mkdir /d/etc; echo own > /d/etc/hostname; ln -s / /d/root; ln -s ../../../etc /d/up",
    )
    for link in ("root/etc", "up"):
        done = tierce(*RUN, "--mount", f"src=data,dst=/x,volume-subpath={link}", "busybox", "cat", "/x/hostname")
        assert done.stdout == "own\n"
    done = tierce.attempt(*RUN, "--mount", "src=data,dst=/x,volume-subpath=absent", "busybox", "true")
    assert (done.code, "no such file or directory" in done.stderr) == (125, True)


@root
def test_a_full_disk_while_a_volume_is_filled(tierce_with_busybox: Tierce) -> None:
    """The volumes are on a small file system: the start fails, the volume is empty, and later it works."""
    tierce = tierce_with_busybox
    tierce("volume", "create", "data")
    place = tierce.root / "volumes/data"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], check=True)
    try:
        for name in ("lock", "fill"):
            (place / name).touch()
        (place / "_data").mkdir()
        (place / "volume.json").write_text('{"CreatedAt": "2026-01-02T03:04:05Z"}')
        done = tierce.attempt(*RUN, "-v", "data:/bin", "busybox", "true")
        assert (done.code, "no space left on device" in done.stderr) == (125, True), str(done)
        assert os.listdir(place / "_data") == []
        subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
        assert tierce(*RUN, "-v", "data:/bin", "busybox", "ls", "/bin/sh").stdout == "/bin/sh\n"
    finally:
        subprocess.run(["umount", place], check=True)


@root
def test_volumes_from_another_container(tierce_with_busybox: Tierce) -> None:
    tierce = tierce_with_busybox
    tierce("create", "--name", "keeper", "--network", "none", "-v", "/anon", "-v", "named:/n", "busybox", "true")
    script = "echo shared > /anon/x; echo shared > /n/x"
    tierce(*RUN, "--volumes-from", "keeper", "busybox", "sh", "-c", script)
    assert tierce(*RUN, "--volumes-from", "keeper:ro", "busybox", "cat", "/anon/x", "/n/x").stdout == "shared\n" * 2
    done = tierce.attempt(*RUN, "--volumes-from", "keeper:ro", "busybox", "touch", "/n/y")
    assert "Read-only file system" in done.stderr
    assert tierce.attempt(*RUN, "--volumes-from", "absent", "busybox", "true").code == 125
    assert len(names(tierce)) == 2
    refused = tierce.attempt("volume", "rm", "named")
    assert (refused.code, "volume is in use - [" in refused.stderr) == (1, True)
    assert tierce("volume", "prune", "-af").stdout == "Total reclaimed space: 0B\n"
    assert names(tierce, "-f", "dangling=true") == []
    tierce("rm", "-v", "keeper")
    assert names(tierce) == ["named"]
    tierce("volume", "rm", "named")
