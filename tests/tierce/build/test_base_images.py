"""What FROM names, with a registries.conf as a user has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from image.platform import Platform
from image.reference import Reference
from store.store import Store
from tests.support.fake_registry import FakeRegistry, fake_registry
from tests.support.tiny_image import tiny_image
from tierce.build.base_images import StoredImages

IMAGE = tiny_image({"a": b"1" * 5000})


def fill(registry: FakeRegistry, repository: str) -> None:
    registry.add_manifest(repository, "1", IMAGE.manifest)
    for data in IMAGE.blobs.values():
        registry.add_blob(data)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def mirror() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "r.conf")}


def test_from_uses_mirrors_and_aliases(
    fake: FakeRegistry, mirror: FakeRegistry, store: Store, tmp_path: Path, environ: dict[str, str]
) -> None:
    fill(mirror, "base")
    (tmp_path / "r.conf").write_text(
        f'[aliases]\n"our-base" = "{fake.host}/base"\n'
        f'[[registry]]\nlocation = "{fake.host}"\n[[registry.mirror]]\nlocation = "{mirror.host}"\n'
    )
    wanted = Reference.parse("our-base:1")
    with store.session() as session:
        found = StoredImages(store, session, environ).resolve(wanted, Platform("linux", "amd64"))
    assert found.manifest.digest == IMAGE.manifest.digest
    assert str(found.reference) == f"{fake.host}/base:1"
    asked = len(mirror.requests)
    with store.session() as session:
        again = StoredImages(store, session, environ).resolve(wanted, Platform("linux", "amd64"))
    assert (again.manifest, len(mirror.requests)) == (found.manifest, asked), "the store has it by its full name"
    assert fake.requests == []


def test_search_registries_in_order(
    fake: FakeRegistry, mirror: FakeRegistry, store: Store, tmp_path: Path, environ: dict[str, str]
) -> None:
    fill(mirror, "team/app")
    (tmp_path / "r.conf").write_text(f'unqualified-search-registries = ["{fake.host}", "{mirror.host}"]\n')
    with store.session() as session:
        images = StoredImages(store, session, environ)
        found = images.describe(Reference.parse("team/app:1"), Platform("linux", "amd64"))
        assert found.manifest.digest == IMAGE.manifest.digest
        resolved = images.resolve(Reference.parse("team/app:1"), Platform("linux", "amd64"))
    assert str(resolved.reference) == f"{mirror.host}/team/app:1"
    assert fake.seen("GET /v2/team/app/manifests/1")
