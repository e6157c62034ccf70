"""Root filesystems and boxes for the tests of the runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.runtime.privileges import Privileges, probe
from tests.support.boxes import Box, make_rootfs


@pytest.fixture(scope="session")
def shared_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests that change nothing in it."""
    return make_rootfs(tmp_path_factory.mktemp("busybox") / "rootfs")


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """For tests that spoil it."""
    return make_rootfs(tmp_path / "rootfs")


@pytest.fixture(scope="session")
def privileges() -> Privileges:
    return probe()


@pytest.fixture
def box(shared_rootfs: Path, tmp_path: Path, privileges: Privileges) -> Box:
    return Box(shared_rootfs, tmp_path / "run", privileges)


@pytest.fixture
def spoilt_box(rootfs: Path, tmp_path: Path, privileges: Privileges) -> Box:
    """A box whose root filesystem the test may change."""
    return Box(rootfs, tmp_path / "run", privileges)
