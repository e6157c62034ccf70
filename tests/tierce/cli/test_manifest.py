"""``tierce manifest``: lists made in the store, pushed to a real registry, read by skopeo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from image.descriptor import Descriptor
from tests.support.cli import Tierce
from tests.support.process import command, need
from tests.support.registry import Registry
from tests.tierce.conftest import Stock


@pytest.fixture
def parts(stock: Stock) -> dict[str, Descriptor]:
    return {
        name: stock.add(f"app:{name}", content=name, platform=f"linux/{name}") for name in ("amd64", "arm64", "arm")
    }


def listed(tierce: Tierce, name: str) -> list[tuple[str, str]]:
    """Digest and platform of each entry."""
    document = json.loads(tierce("manifest", "inspect", name).stdout)
    return [
        (
            entry["digest"],
            "/".join(filter(None, (entry["platform"].get(key) for key in ("os", "architecture", "variant")))),
        )
        for entry in document["manifests"]
    ]


def test_grows_and_shrinks(tierce: Tierce, parts: dict[str, Descriptor]) -> None:
    tierce("manifest", "create", "list")
    assert listed(tierce, "list") == []
    tierce("manifest", "add", "list", "app:amd64", "app:arm64")
    tierce("manifest", "add", "--variant", "v6", "--annotation", "a=b=c", "list", "app:arm")
    assert listed(tierce, "list") == [
        (str(parts["amd64"].digest), "linux/amd64"),
        (str(parts["arm64"].digest), "linux/arm64"),
        (str(parts["arm"].digest), "linux/arm/v6"),
    ]
    tierce("manifest", "annotate", "--variant", "v5", "list", "app:arm")
    tierce("manifest", "annotate", "--os-features", "x", "list", str(parts["amd64"].digest))
    tierce("manifest", "remove", "list", "app:arm64")
    first, second = json.loads(tierce("manifest", "inspect", "list").stdout)["manifests"]
    assert first["platform"] == {"architecture": "amd64", "os": "linux", "os.features": ["x"]}
    assert (second["platform"]["variant"], second["annotations"]) == ("v5", {"a": "b=c"})


def test_leaves_no_image_without_a_name(tierce: Tierce, parts: dict[str, Descriptor]) -> None:
    tierce("manifest", "create", "list", "app:amd64")
    tierce("manifest", "add", "list", "app:arm64")
    names = {"app:amd64", "app:arm64", "app:arm", "list:latest"}
    shown = ("images", "--format", "{{.Repository}}:{{.Tag}}")
    assert set(tierce(*shown).stdout.split()) == names
    tierce("manifest", "rm", "list")
    assert set(tierce(*shown).stdout.split()) == names - {"list:latest"}
    assert tierce.attempt("manifest", "exists", "list").code == 1
    tierce("system", "check")


@pytest.mark.peer
def test_made_of_images_of_a_registry_and_pushed(
    tierce: Tierce, parts: dict[str, Descriptor], place: Registry, tmp_path: Path
) -> None:
    """In another store, which has none of them; then skopeo finds every image where it should be."""
    for name in parts:
        tierce("copy", "-q", f"app:{name}", f"docker://{place.name(f'parts/{name}:1')}")
    other = Tierce(tmp_path / "other")
    name = place.name("pushed/app:all")
    other("manifest", "create", name, *(f"docker://{place.name(f'parts/{part}:1')}" for part in parts))
    pushed = other("manifest", "push", "--purge", "--digestfile", tmp_path / "digest", name)
    digest = pushed.stdout.splitlines()[-1]
    assert (tmp_path / "digest").read_text() == digest
    assert other("images", "-q").stdout == ""
    raw = command([need("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{name}"])
    assert [entry["digest"] for entry in json.loads(raw)["manifests"]] == [str(part.digest) for part in parts.values()]
    command([need("skopeo"), "copy", "--all", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/check"])
    assert tierce("digest", f"docker://{name}").stdout == f"{digest}\n"


@pytest.mark.peer
def test_list_of_a_list(tierce: Tierce, parts: dict[str, Descriptor], place: Registry) -> None:
    tierce("manifest", "create", "list", "app:amd64", "app:arm64")
    name = place.name("lists/app:1")
    tierce("manifest", "push", "-q", "--format", "v2s2", "list", f"docker://{name}")
    tierce("manifest", "create", "here", name)
    tierce("manifest", "create", "--all", "everywhere", name)
    assert len(listed(tierce, "here")) == 1
    assert [platform for _, platform in listed(tierce, "everywhere")] == ["linux/amd64", "linux/arm64"]
    assert listed(tierce, f"docker://{name}") == listed(tierce, "everywhere")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("create", "list"), "list:latest exists in the store: remove it, or use --amend"),
        (("add", "absent", "app:arm"), "manifest list absent:latest not found"),
        (("add", "app:arm", "app:arm"), "app:arm is one image, and no manifest list"),
        (("annotate", "--arch", "x", "list", "app:arm"), "app:arm is not in the manifest list"),
        (("add", "--annotation", "x", "list", "app:arm"), "want KEY=VALUE"),
        (("push", "app:arm", "docker://localhost:1/x"), "no manifest list"),
        (("rm", "app:arm"), "no manifest list"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refused(tierce: Tierce, parts: dict[str, Descriptor], words: tuple[str, ...], error: str) -> None:
    tierce("manifest", "create", "list")
    done = tierce.attempt("manifest", *words)
    assert done.code != 0
    assert error in done.stderr
    assert listed(tierce, "list") == []
    tierce("manifest", "create", "--amend", "list")
