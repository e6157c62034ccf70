"""Volumes of a store: made, filled, held, removed; whole after a kill."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from image.errors import Conflict, InvalidInput, StorageError, VolumeInUse, VolumeNotFound
from runner.volumes import copy_up
from runner.volumes.provide import MountPoint, inspected, provided, remove_anonymous
from runner.volumes.request import MountRequest
from runner.volumes.volumes import Volumes


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image's tree with one of each kind of file below /srv."""
    srv = tmp_path / "image/srv"
    (srv / "sub").mkdir(parents=True)
    (srv / "sub/file").write_text("content")
    (srv / "sub/file").chmod(0o4750)
    os.link(srv / "sub/file", srv / "again")
    (srv / "link").symlink_to("/etc/passwd")
    os.mkfifo(srv / "fifo", 0o640)
    srv.chmod(0o1770)
    return tmp_path / "image"


class _Tree:
    """Opens a directory as ``provided`` wants it, and counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened = 0

    @contextmanager
    def __call__(self) -> Iterator[int]:
        self.opened += 1
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)


def provide(volumes: Volumes, image: Path, *requests: MountRequest) -> tuple[MountPoint, ...]:
    with provided(requests, volumes, _Tree(image)) as points:
        return points


def test_made_once_and_laid_out_as_dockers(volumes: Volumes, tmp_path: Path) -> None:
    made = volumes.create("data", labels=(("a", "b"),))
    assert made.data == f"{tmp_path}/volumes/data/_data"
    assert stat.S_IMODE(os.stat(made.data).st_mode) == 0o755
    assert volumes.create("data") == made == volumes.get("data")
    assert [volume.name for volume in volumes.all()] == ["data"]
    anonymous = volumes.create()
    assert anonymous.anonymous
    assert len(anonymous.name) == 64


@pytest.mark.parametrize("name", ["a", "../x", "a/b", ".hidden", "-x", "x" * 300, "a b"])
def test_names_refused(name: str, volumes: Volumes) -> None:
    with pytest.raises(InvalidInput):
        volumes.create(name)
    with pytest.raises(VolumeNotFound):
        volumes.get(name)


def test_options(volumes: Volumes) -> None:
    options = (("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m"))
    assert volumes.create("scratch", options=options).options == options
    with pytest.raises(Conflict, match="other options"):
        volumes.create("scratch", options=(("type", "none"), ("device", "/x"), ("o", "bind")))
    with pytest.raises(InvalidInput, match="size"):
        volumes.create("quota", options=(("size", "1m"),))
    with pytest.raises(InvalidInput, match="both needed"):
        volumes.create("half", options=(("type", "nfs"),))
    with pytest.raises(InvalidInput, match="'vieux/sshfs' is not supported"):
        volumes.create("remote", driver="vieux/sshfs")


def test_removal_spares_what_is_in_use(volumes: Volumes) -> None:
    made = volumes.create("data")
    held = volumes.hold(made)
    assert volumes.in_use(made)
    with pytest.raises(VolumeInUse):
        volumes.remove("data")
    os.close(held)
    with pytest.raises(VolumeInUse, match="c0ffee"):
        volumes.remove("data", users=["c0ffee"])
    volumes.remove("data")
    assert volumes.all() == []
    with pytest.raises(VolumeNotFound):
        volumes.hold(made)
    assert os.listdir(volumes.base) == [".lock"]


def test_what_a_killed_process_left_goes_with_the_next_change(volumes: Volumes) -> None:
    volumes.create("data")
    (volumes.base / ".new-1/_data").mkdir(parents=True)
    (volumes.base / ".gone-2/_data").mkdir(parents=True)
    assert [volume.name for volume in volumes.all()] == ["data"]
    volumes.create("more")
    assert sorted(os.listdir(volumes.base)) == [".lock", "data", "more"]


def test_damaged_record_is_told(volumes: Volumes) -> None:
    (volumes.create("data").path / "volume.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        volumes.get("data")


@pytest.mark.root
def test_copy_up_keeps_everything(volumes: Volumes, image: Path) -> None:
    srv = image / "srv"
    os.chown(srv / "sub", 7, 8)
    os.setxattr(srv / "sub/file", "user.note", b"kept")
    subprocess.run(["setcap", "cap_net_raw=ep", srv / "sub/file"], check=False)
    os.mknod(srv / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (point,) = provide(volumes, image, MountRequest("volume", "/srv", "data"))
    data = Path(point.source)
    assert (data / "sub/file").read_text() == "content"
    for path in (".", "sub", "sub/file", "fifo", "null"):
        before, after = os.lstat(srv / path), os.lstat(data / path)
        for fact in ("st_mode", "st_uid", "st_gid", "st_rdev", "st_mtime_ns"):
            assert getattr(before, fact) == getattr(after, fact), (path, fact)
    assert os.listxattr(srv / "sub/file") == os.listxattr(data / "sub/file")
    assert os.readlink(data / "link") == "/etc/passwd"
    assert os.path.samefile(data / "again", data / "sub/file")
    assert sorted(os.listdir(data.parent)) == ["_data", "fill", "lock", "volume.json"]


def test_copy_up_only_into_an_empty_volume(volumes: Volumes, image: Path) -> None:
    own = volumes.create("data")
    Path(own.data, "mine").write_text("x")
    provide(volumes, image, MountRequest("volume", "/srv", "data"))
    assert os.listdir(own.data) == ["mine"]
    Path(own.data, "mine").unlink()
    provide(volumes, image, MountRequest("volume", "/srv", "data"))
    assert sorted(os.listdir(own.data)) == ["again", "fifo", "link", "sub"]


@pytest.mark.parametrize(
    "request_", [MountRequest("volume", "/srv", "data", no_copy=True), MountRequest("volume", "/absent", "data")],
    ids=["nocopy", "nothing there"],
)  # fmt: skip
def test_no_copy_up(request_: MountRequest, volumes: Volumes, image: Path) -> None:
    (point,) = provide(volumes, image, request_)
    assert os.listdir(point.source) == []


def test_links_of_the_image_stay_inside_it(volumes: Volumes, image: Path) -> None:
    (image / "out").symlink_to("/etc")
    (image / "etc").mkdir()
    (image / "etc/own").write_text("")
    (point,) = provide(volumes, image, MountRequest("volume", "/out", "data"))
    assert os.listdir(point.source) == ["own"]
    (image / "file").write_text("")
    with pytest.raises(InvalidInput, match="not a directory"):
        provide(volumes, image, MountRequest("volume", "/file", "other"))


def test_a_copy_that_fails_leaves_the_volume_empty(
    volumes: Volumes, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copy_up, "_copy_facts", full)
    with pytest.raises(StorageError, match="no space left on device"):
        provide(volumes, image, MountRequest("volume", "/srv", "data"), MountRequest("volume", "/srv"))
    made = volumes.get("data")
    assert os.listdir(made.data) == []
    assert sorted(os.listdir(made.path)) == ["_data", "fill", "lock", "volume.json"]


@pytest.mark.parametrize("stage", ["copying", "moving"])
def test_a_killed_copy_is_never_seen_half_done(stage: str, volumes: Volumes, image: Path, tmp_path: Path) -> None:
    made = volumes.create("data")
    if stage == "copying":
        (made.path / "filling/sub").mkdir(parents=True)
    else:
        fd = os.open(image / "srv", os.O_RDONLY)
        (made.path / "filled").mkdir()
        whole = os.open(made.path / "filled", os.O_RDONLY)
        copy_up.copy_directory(fd, whole)
        os.close(fd)
        os.close(whole)
        os.rename(made.path / "filled/link", f"{made.data}/link")
    provide(volumes, image, MountRequest("volume", "/srv", "data"))
    assert sorted(os.listdir(made.data)) == ["again", "fifo", "link", "sub"]
    assert stat.S_IMODE(os.stat(made.data).st_mode) == 0o1770


def test_image_is_opened_only_for_a_volume_that_wants_it(volumes: Volumes, image: Path) -> None:
    tree = _Tree(image)
    Path(volumes.create("full").data, "x").touch()
    requests = [MountRequest("volume", "/srv", "full"), MountRequest("tmpfs", "/t")]
    with provided(requests, volumes, tree):
        assert tree.opened == 0
        assert volumes.in_use(volumes.get("full"))
    assert not volumes.in_use(volumes.get("full"))


def test_anonymous_volumes_of_a_failed_start_are_gone(volumes: Volumes, image: Path) -> None:
    requests = [
        MountRequest("volume", "/a"),
        MountRequest("volume", "/b", "named"),
        MountRequest("bind", "/c", "/absent"),
    ]
    with pytest.raises(InvalidInput, match="bind source path does not exist: /absent"):
        provide(volumes, image, *requests)
    assert [volume.name for volume in volumes.all()] == ["named"]


def test_anonymous_volumes_go_with_their_container(volumes: Volumes, image: Path) -> None:
    points = provide(volumes, image, MountRequest("volume", "/a"), MountRequest("volume", "/b", "named"))
    remove_anonymous(points, volumes)
    assert [volume.name for volume in volumes.all()] == ["named"]


def test_absent_source_of_a_short_bind_is_made(volumes: Volumes, image: Path, tmp_path: Path) -> None:
    source = tmp_path / "made/here"
    provide(volumes, image, MountRequest("bind", "/a", str(source), make_source=True))
    assert source.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot make it: not a directory"):
        provide(volumes, image, MountRequest("bind", "/a", f"{tmp_path}/file/x", make_source=True))


def test_inspected_as_docker_shows_it(volumes: Volumes, image: Path) -> None:
    points = provide(
        volumes, image,
        MountRequest("volume", "/v", "data"), MountRequest("bind", "/b", "/etc", read_only=True, mode="ro"),
        MountRequest("tmpfs", "/t"),
    )  # fmt: skip
    assert inspected(points) == [
        {"Type": "volume", "Name": "data", "Source": volumes.get("data").data, "Destination": "/v",
         "Driver": "local", "Mode": "z", "RW": True, "Propagation": ""},
        {"Type": "bind", "Source": "/etc", "Destination": "/b", "Mode": "ro", "RW": False, "Propagation": "rprivate"},
        {"Type": "tmpfs", "Source": "", "Destination": "/t", "Mode": "", "RW": True, "Propagation": ""},
    ]  # fmt: skip
