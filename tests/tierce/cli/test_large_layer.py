"""A layer that is larger than the memory a transfer may take: it goes through in pieces, whichever way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from fixtures.registries.large import large_image
from tests.support.cli import Tierce
from tests.support.memory import measure

SIZE: Final = 400 << 20
ALLOWED_KIB: Final = 120 << 10


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with large_image(tmp_path_factory.mktemp("large") / "layer", SIZE) as name:
        yield name


def assert_flat(tierce: Tierce, scratch: Path, *words: str) -> None:
    done = measure(tierce.argv(*words), scratch, env=tierce.env())
    assert done.code == 0, done.stderr
    assert done.peak_kib <= ALLOWED_KIB


def test_from_registry_to_registry(tierce: Tierce, image: str, tmp_path: Path) -> None:
    assert_flat(tierce, tmp_path, "copy", f"docker://{image}", f"docker://{image.partition('/')[0]}/copied:1")


def test_packed_anew_on_the_way(tierce: Tierce, image: str, tmp_path: Path) -> None:
    words = (
        "copy",
        "--dest-compress-format",
        "zstd",
        f"docker://{image}",
        f"docker://{image.partition('/')[0]}/packed:1",
    )
    assert_flat(tierce, tmp_path, *words)


def test_kept_equal(tierce: Tierce, image: str, tmp_path: Path) -> None:
    assert_flat(
        tierce, tmp_path, "sync", "--src", "docker", "--dest", "docker", image, f"{image.partition('/')[0]}/synced"
    )


@pytest.mark.root
def test_into_the_store_and_out_of_it(tierce: Tierce, image: str, tmp_path: Path) -> None:
    assert_flat(tierce, tmp_path, "pull", image)
    [unpacked] = (tierce.root / "overlay2").glob("*/diff/zeros")
    assert unpacked.stat().st_size == SIZE
    again = f"{image.partition('/')[0]}/pushed:1"
    tierce("tag", image, again)
    assert_flat(tierce, tmp_path, "push", again)
