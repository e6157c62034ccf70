"""What tests of commands share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cli import Tierce
from tests.support.registry import Registry, registry


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry of this file's own."""
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def box(tierce_with_busybox: Tierce) -> Iterator[Tierce]:
    """Tierce with busybox, whose containers are removed at the end."""
    yield tierce_with_busybox
    ids = tierce_with_busybox("ps", "-aq").stdout.split()
    if ids:
        tierce_with_busybox("rm", "-fv", *ids)
