"""The same inputs give the same image, wherever and whenever it is built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cli import Tierce

pytestmark = pytest.mark.root

SITE = Path(__file__).parents[2] / "Dockerfile.examples" / "site"


def test_two_fresh_stores_give_one_digest(busybox_archive: Path, tmp_path: Path) -> None:
    def built(name: str) -> str:
        tierce = Tierce(tmp_path / name, {"SOURCE_DATE_EPOCH": "1700000000"})
        context = tmp_path / f"{name}-context"
        shutil.copytree(SITE, context, copy_function=shutil.copyfile)  # fresh times, as a fresh clone has
        tierce("load", "--input", busybox_archive)
        tierce("build", "--quiet", "--network=host", "--tag", "site", context)
        return tierce("images", "--no-trunc", "--format", "{{.ID}} {{.Digest}}", "site").stdout

    first = built("first")
    assert first.count("sha256:") == 2
    assert first == built("second")
