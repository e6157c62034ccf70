"""Looking at images where they are, beside skopeo, in a real registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from image.config import ContainerConfig
from image.manifest import decode_manifest
from tests.support.cli import Tierce
from tests.support.process import command, need
from tests.support.registry import Login, Registry, registry
from tests.tierce.conftest import Stock

pytestmark = pytest.mark.peer


def skopeo(*args: str) -> str:
    return command([need("skopeo"), *args])


class TestInspect:
    def test_summary_is_skopeo_s(self, stock: Stock, tierce: Tierce, place: Registry) -> None:
        stock.add("app", labels={"a": "b"})
        name = f"docker://{place.name('summary/app:1')}"
        tierce("copy", "--additional-tag", "2", "app", name)
        ours = json.loads(tierce("inspect", name).stdout)
        theirs = json.loads(skopeo("inspect", "--tls-verify=false", name))
        assert ours.pop("LayersData")[0]["Digest"] == ours["Layers"][0]
        theirs.pop("LayersData", None)
        assert ours | {"RepoTags": ["1", "2"]} == theirs | {"RepoTags": sorted(theirs["RepoTags"])}
        assert json.loads(tierce("inspect", "--no-tags", name).stdout)["RepoTags"] == []
        assert tierce("inspect", "--format", "{{.Name}} {{.Digest}}", name).stdout == (
            skopeo("inspect", "--tls-verify=false", "--format", "{{.Name}} {{.Digest}}", name)
        )

    def test_of_an_image_with_nothing_to_tell(self, stock: Stock, tierce: Tierce, place: Registry) -> None:
        stock.add("app", config=ContainerConfig())
        name = f"docker://{place.name('summary/empty:1')}"
        tierce("copy", "app", name)
        ours = json.loads(tierce("inspect", name).stdout)
        theirs = json.loads(skopeo("inspect", "--tls-verify=false", name))
        assert {key: ours[key] for key in theirs if key != "LayersData"} == theirs

    def test_raw_is_the_very_bytes(self, stock: Stock, tierce: Tierce, place: Registry) -> None:
        target = stock.add("app")
        name = f"docker://{place.name('raw/app:1')}"
        tierce("copy", "app", name)
        manifest = tierce("inspect", "--raw", name).stdout.encode()
        assert decode_manifest(manifest).descriptor == target
        assert manifest.decode() == skopeo("inspect", "--raw", "--tls-verify=false", name)
        config = tierce("inspect", "--raw", "--config", name).stdout
        assert config == skopeo("inspect", "--raw", "--config", "--tls-verify=false", name)
        assert json.loads(tierce("inspect", "--config", name).stdout) == json.loads(config)

    def test_other_places(self, stock: Stock, tierce: Tierce, tmp_path: Path) -> None:
        target = stock.add("app")
        tierce("copy", "app", f"oci:{tmp_path}/layout:app")
        summary = json.loads(tierce("inspect", f"oci:{tmp_path}/layout:app").stdout)
        assert summary["Digest"] == str(target.digest)
        assert "Name" not in summary
        assert (
            tierce("inspect", "--raw", "app").stdout == tierce("inspect", "--raw", f"oci:{tmp_path}/layout:app").stdout
        )

    def test_image_of_the_store_that_is_called_like_a_transport(self, stock: Stock, tierce: Tierce) -> None:
        stock.add("dir:1")
        assert json.loads(tierce("inspect", "dir:1").stdout)[0]["RepoTags"] == ["dir:1"]

    def test_platform_of_an_index(self, stock: Stock, tierce: Tierce, place: Registry) -> None:
        children = [(stock.add(f"part-{name}", content=name, platform=f"linux/{name}"), f"linux/{name}") for name in ("amd64", "arm64")]  # fmt: skip
        index = stock.add_index("all", children)
        name = f"docker://{place.name('platforms/app:1')}"
        tierce("copy", "all", name)
        for architecture, (child, platform) in zip(("amd64", "arm64"), children, strict=True):
            summary = json.loads(tierce("inspect", "--platform", platform, name).stdout)
            assert (summary["Architecture"], summary["Digest"]) == (architecture, str(index.digest))
            assert tierce("digest", "--platform", platform, name).stdout == f"{child.digest}\n"
        assert tierce("digest", name).stdout == f"{index.digest}\n"

    def test_several_at_once(self, tierce: Tierce) -> None:
        assert "one image at a time" in tierce.attempt("inspect", "docker://a", "docker://b").stderr


class TestTags:
    def test_list_is_skopeo_s(self, stock: Stock, tierce: Tierce, place: Registry) -> None:
        target = stock.add("app")
        name = f"docker://{place.name('tags/app')}"
        tierce("copy", "app", f"{name}:1", "--additional-tag", "2", "--additional-tag", f"sha256-{target.digest.encoded}.sig")  # fmt: skip
        ours = json.loads(tierce("list-tags", name).stdout)
        theirs = json.loads(skopeo("list-tags", "--tls-verify=false", name))
        assert ours | {"Tags": sorted(ours["Tags"])} == theirs | {"Tags": sorted(theirs["Tags"])}
        assert sorted(tierce("list-tags", "-q", "-O", place.name("tags/app")).stdout.split()) == ["1", "2"]

    def test_a_tag_is_no_repository(self, tierce: Tierce) -> None:
        assert "want a repository, without a tag" in tierce.attempt("list-tags", "docker://a.example/b:1").stderr

    def test_absent(self, tierce: Tierce, place: Registry) -> None:
        for words in (("list-tags", place.name("absent")), ("digest", place.name("absent:1"))):
            done = tierce.attempt(*words)
            assert done.code == 1
            assert "not found in registry" in done.stderr

    def test_one_more_in_the_registry(self, stock: Stock, tierce: Tierce, place: Registry) -> None:
        target = stock.add("app")
        name = f"docker://{place.name('retag/app')}"
        tierce("copy", "app", f"{name}:1")
        tierce("tag", f"{name}:1", "stable")
        tierce("tag", f"{name}:1", f"{name}:newest")
        for tag in ("stable", "newest"):
            assert tierce("digest", f"{name}:{tag}").stdout == f"{target.digest}\n"
        assert "want a tag of" in tierce.attempt("tag", f"{name}:1", place.name("other:1")).stderr

    def test_with_a_password(self, stock: Stock, tierce: Tierce, tmp_path: Path) -> None:
        with registry(tmp_path / "locked", login=Login("alice", "secret")) as locked:
            stock.add("app")
            name = f"docker://{locked.name('app')}"
            tierce("copy", "-q", "--dest-creds=alice:secret", "app", f"{name}:1")
            assert "access denied" in tierce.attempt("list-tags", name).stderr
            assert tierce("list-tags", "-q", "--creds=alice:secret", name).stdout == "1\n"
            tierce("tag", "--creds=alice:secret", f"{name}:1", "2")
            summary = json.loads(tierce("inspect", "--creds=alice:secret", f"{name}:2").stdout)
            assert sorted(summary["RepoTags"]) == ["1", "2"]


class TestDelete:
    @pytest.fixture
    def name(self, stock: Stock, tierce: Tierce, place: Registry, tmp_path: Path) -> str:
        """An image under one tag of a repository, and another under two."""
        stock.add("alone", content="alone")
        stock.add("shared", content="shared")
        name = f"docker://{place.name(f'delete/{tmp_path.name.lower()}')}"
        tierce("copy", "-q", "alone", f"{name}:alone")
        tierce("copy", "-q", "--additional-tag", "second", "shared", f"{name}:first")
        return name

    def tags(self, tierce: Tierce, name: str) -> set[str]:
        return set(tierce("list-tags", "-q", name).stdout.split())

    def test_of_one_tag_does_not_ask(self, tierce: Tierce, name: str) -> None:
        digest = tierce("digest", f"{name}:alone").stdout.strip()
        done = tierce("delete", f"{name}:alone")
        assert done.stdout == f"Deleted: {name.removeprefix('docker://')}@{digest}\n"
        assert self.tags(tierce, name) == {"first", "second"}
        assert "not found in registry" in tierce.attempt("delete", f"{name}:alone").stderr

    @pytest.mark.parametrize(
        ("answer", "left"),
        [("n\n", {"alone", "first", "second"}), ("", {"alone", "first", "second"}), ("y\n", {"alone"})],
    )
    def test_other_tags_are_named_first(self, tierce: Tierce, name: str, answer: str, left: set[str]) -> None:
        done = tierce.attempt("delete", f"{name}:first", stdin=answer)
        assert "first is also tagged second: these tags will be gone too" in done.stdout
        assert (done.code == 0) == (left == {"alone"})
        assert self.tags(tierce, name) == left

    def test_force_does_not_ask(self, tierce: Tierce, name: str) -> None:
        assert "WARNING" not in tierce("delete", "-y", f"{name}:second").stdout
        assert self.tags(tierce, name) == {"alone"}

    def test_catalog(self, tierce: Tierce, place: Registry, name: str) -> None:
        repository = name.removeprefix(f"docker://{place.host}/")
        assert repository in tierce("catalog", place.host).stdout.splitlines()
