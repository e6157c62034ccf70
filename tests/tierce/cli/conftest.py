"""What tests of containers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cli import Tierce


@pytest.fixture
def box(tierce_with_busybox: Tierce) -> Iterator[Tierce]:
    """Tierce with busybox, whose containers are removed at the end."""
    yield tierce_with_busybox
    ids = tierce_with_busybox("ps", "-aq").stdout.split()
    if ids:
        tierce_with_busybox("rm", "-fv", *ids)
