from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.digest import ChainID, DiffID
from image.errors import KernelError, LayerNotFound
from store.layers import OverlayMount, mounted
from store.store import Session, Store

pytestmark = pytest.mark.root


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Store.open(tmp_path / "root") as store, store.session() as session:
        yield session


def stack_of(session: Session, depth: int) -> ChainID:
    """Layers that each hold a file of their own, and all of which write ``last``."""
    chain: ChainID | None = None
    above: str | None = None
    for number in range(depth):
        workspace = session.workspace(above)
        (workspace.diff / f"file{number}").write_text(str(number))
        (workspace.diff / "last").write_text(str(number))
        diff_id = DiffID.of(str(number).encode())
        chain = session.commit_layer(workspace, chain, diff_id, size=1, entries=2).chain_id
        above = workspace.directory
    assert chain is not None
    return chain


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("depth", [1, 2, 128, 200])
def test_a_stack_mounts_whatever_its_depth(session: Session, depth: int) -> None:
    layers = session.store.layers
    chain = stack_of(session, depth)
    before = mounts()
    with mounted(layers.overlay(layers.directories_of(chain))) as tree:
        assert len(os.listdir(tree)) == depth + 1
        with open(os.open("last", os.O_RDONLY, dir_fd=tree)) as file:
            assert file.read() == str(depth - 1)
        assert mounts() == before, "nothing appears in the caller's mount namespace"
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("new", dir_fd=tree)


def test_changes_land_in_the_workspace_alone(session: Session) -> None:
    layers = session.store.layers
    chain = stack_of(session, 2)
    directories = layers.directories_of(chain)
    workspace = session.workspace(directories[0])
    with mounted(layers.overlay(directories, workspace, volatile=True)) as tree:
        os.unlink("file0", dir_fd=tree)
        os.mkdir("made", dir_fd=tree)
    assert sorted(os.listdir(workspace.diff)) == ["file0", "made"]
    assert stat.S_ISCHR((workspace.diff / "file0").lstat().st_mode), "a whiteout"
    assert (layers.base / directories[1] / "diff" / "file0").read_text() == "0"


def test_the_root_directory_looks_like_the_parents(session: Session) -> None:
    below = session.workspace(None)
    below.diff.chmod(0o1711)
    os.chown(below.diff, 7, 8)
    above = session.workspace(below.directory)
    seen = above.diff.stat()
    assert (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) == (0o1711, 7, 8)


def test_an_absent_layer(session: Session) -> None:
    with pytest.raises(LayerNotFound):
        session.store.layers.stack(ChainID.of(b"absent"))


def test_a_mount_that_the_kernel_refuses(tmp_path: Path) -> None:
    (tmp_path / "view").mkdir()
    with (
        pytest.raises(KernelError, match="mount a root filesystem"),
        mounted(OverlayMount(tmp_path, ("absent", "absent"), None, None, "view")),
    ):
        pass


def test_the_layout_is_the_one_docker_users_know(session: Session) -> None:
    layers = session.store.layers
    top, bottom = layers.directories_of(stack_of(session, 2))
    link = (layers.base / top / "link").read_text()
    assert (layers.base / "l" / link).resolve() == layers.base / top / "diff"
    assert (layers.base / top / "lower").read_text() == "l/" + (layers.base / bottom / "link").read_text()
