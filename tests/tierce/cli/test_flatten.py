"""An image's layers as one tree: as a tar, and as an image of one layer that skopeo reads."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.image_tree import ROOT, Inode, apply_layer, oci_layout
from tests.support.process import command, need
from tests.support.registry import Registry
from tests.support.tars import archive, member
from tests.tierce.conftest import Stock

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def tierce(tmp_path_factory: pytest.TempPathFactory) -> Tierce:
    return Tierce(tmp_path_factory.mktemp("tierce") / "root")


@pytest.fixture(scope="module")
def layered(tierce: Tierce, place: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of three layers in a registry, the upper ones hiding much of the lower."""
    directory = tmp_path_factory.mktemp("layers")
    Stock(tierce.root).add("app", labels={"kept": "1"})
    (directory / "1.tar").write_bytes(
        archive(
            member("d", "directory", mode=0o750), member("d/old", content=b"old"),
            member("f", content=b"f" * 3_000_000, mode=0o4755, uid=7), member("g", "link", link="f"),
        )
    )  # fmt: skip
    (directory / "2.tar").write_bytes(archive(member("d/.wh.old"), member("d/new"), member("f", content=b"other")))
    name = place.name("flat/app:1")
    files = [word for number in "12" for word in ("-f", directory / f"{number}.tar")]
    tierce("append", "-q", "-b", "app", *files, "-t", f"docker://{name}")
    return name


def tree_of(tar: bytes) -> dict[str, Inode]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return apply_layer(ROOT, opened)


def by_skopeo(name: str, directory: Path) -> Path:
    command([need("skopeo"), "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{directory}:x"])
    return directory


def test_export_is_the_tree_of_all_layers(layered: str, tierce: Tierce, tmp_path: Path) -> None:
    tierce("image", "export", f"docker://{layered}", tmp_path / "all.tar")
    piped = subprocess.run(tierce.argv("image", "export", f"docker://{layered}"), check=True, capture_output=True)
    assert piped.stdout == (tmp_path / "all.tar").read_bytes()
    found = tree_of(piped.stdout)
    assert found == oci_layout(by_skopeo(layered, tmp_path / "layout"), "x").tree
    assert {"d/new", "f", "g", "greeting"} < found.keys()
    assert found["g"].size == 3_000_000


def test_flatten(layered: str, tierce: Tierce, place: Registry, tmp_path: Path) -> None:
    flat = place.name("flat/app:flat")
    tierce("flatten", "-q", "-t", f"docker://{flat}", f"docker://{layered}")
    before, after = (oci_layout(by_skopeo(name, tmp_path / name.rpartition(":")[2]), "x") for name in (layered, flat))
    assert after.tree == before.tree
    assert (len(after.config["rootfs"]["diff_ids"]), len(after.config["history"])) == (1, 1)
    assert after.config["config"] == before.config["config"]


def test_flatten_without_a_tag_goes_beside_the_image(layered: str, tierce: Tierce, place: Registry) -> None:
    digest = tierce("flatten", "-q", f"docker://{layered}").stdout.strip()
    told = tierce("inspect", "--no-tags", f"docker://{place.name('flat/app')}@{digest}").stdout
    assert len(json.loads(told)["Layers"]) == 1
    assert tierce.attempt("flatten", "app").stderr.startswith("tierce: flatten needs -t")


def test_what_is_damaged_leaves_no_file(layered: str, tierce: Tierce, tmp_path: Path) -> None:
    layout = by_skopeo(layered, tmp_path / "layout")
    largest = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-5] + b"wrong")
    done = tierce.attempt("image", "export", f"oci:{layout}", tmp_path / "all.tar")
    assert done.code == 1
    assert largest.name in done.stderr
    assert not list(tmp_path.glob("*all.tar*"))


def test_the_command_for_containers_says_which_is_for_images(tierce: Tierce) -> None:
    said = tierce.attempt("export", "docker://app").stderr
    assert said.startswith(
        "tierce: export docker://app: that is no container; for an image: tierce image export docker"
    )
