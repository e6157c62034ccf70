"""Images of other images without a build: in a real registry, read by skopeo."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from image.digest import DiffID
from tests.support.cli import Tierce
from tests.support.process import command, need
from tests.support.registry import Registry
from tests.support.tiny_image import layer_tar
from tests.tierce.conftest import Stock

pytestmark = pytest.mark.peer

TOP = layer_tar({"top": b"top" * 1000})


def skopeo_config(name: str, tmp_path: Path) -> dict[str, Any]:
    """The configuration, after skopeo has copied the image and with it verified every blob."""
    skopeo = need("skopeo")
    command([skopeo, "copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/check"])
    found = json.loads(command([skopeo, "inspect", "--raw", "--config", f"dir:{tmp_path}/check"]))
    assert isinstance(found, dict)
    return found


def config(tierce: Tierce, name: str) -> dict[str, Any]:
    found = json.loads(tierce("inspect", "--config", name).stdout)
    assert isinstance(found, dict)
    return found


def test_mutate(stock: Stock, tierce: Tierce, place: Registry, tmp_path: Path) -> None:
    stock.add("app", labels={"old": "1", "kept": "2"})
    first, second = place.name("mutate/app:1"), place.name("mutate/app:2")
    tierce("copy", "-q", "app", f"docker://{first}")
    done = tierce(
        "mutate", "-t", f"docker://{second}", "--label", "old=x=y", "--env", "A=", "--env", "NEW=1", "--entrypoint",
        "/bin/app,-v", "--user", "7", "--workdir", "/srv", "--exposed-ports", "80", "--set-platform", "linux/arm64",
        "--annotation", "note=here", f"docker://{first}",
    )  # fmt: skip
    found = skopeo_config(second, tmp_path)
    assert (found["os"], found["architecture"]) == ("linux", "arm64")
    container = found["config"]
    assert container["Labels"] == {"old": "x=y", "kept": "2"}
    assert container["Env"] == ["B=two", "A=", "NEW=1"]
    assert (container["Entrypoint"], container["Cmd"]) == (["/bin/app", "-v"], None)
    assert (container["User"], container["WorkingDir"], container["ExposedPorts"]) == ("7", "/srv", {"80/tcp": {}})
    manifest = json.loads(tierce("inspect", "--raw", f"docker://{second}").stdout)
    assert manifest["annotations"] == {"note": "here"}
    assert tierce("digest", f"docker://{second}").stdout == done.stdout.splitlines()[-1] + "\n"
    before = json.loads(tierce("inspect", "--raw", f"docker://{first}").stdout)
    assert manifest["layers"] == before["layers"]


@pytest.mark.parametrize("form", ["plain", "gzip", "zstd"])
def test_append(stock: Stock, tierce: Tierce, place: Registry, tmp_path: Path, form: str) -> None:
    stock.add("app")
    packed = {"plain": TOP, "gzip": gzip.compress(TOP), "zstd": zstandard.compress(TOP)}[form]
    (tmp_path / "top.tar").write_bytes(packed)
    name = place.name(f"append/{form}:1")
    tierce("append", "-b", "app", "-f", tmp_path / "top.tar", "-t", f"docker://{name}")
    before, after = config(tierce, "store:app"), skopeo_config(name, tmp_path)
    assert after["rootfs"]["diff_ids"] == [*before["rootfs"]["diff_ids"], str(DiffID.of(TOP))]
    assert after["history"][-1] == {"created_by": "append top.tar"}
    tierce("copy", f"docker://{name}", "back")
    tierce("system", "check")


def test_append_to_docker_s_form(stock: Stock, tierce: Tierce, place: Registry, tmp_path: Path) -> None:
    stock.add("app")
    (tmp_path / "top.tar").write_bytes(TOP)
    (tmp_path / "top.zst").write_bytes(zstandard.compress(TOP))
    base, name = f"docker://{place.name('append/docker:1')}", f"docker://{place.name('append/docker:2')}"
    tierce("copy", "-q", "--format", "v2s2", "app", base)
    tierce("append", "-b", base, "-f", tmp_path / "top.tar", "-t", name)
    manifest = json.loads(tierce("inspect", "--raw", name).stdout)
    assert [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]] == ["gzip", "gzip"]
    refused = tierce.attempt("append", "-b", base, "-f", tmp_path / "top.zst", "-t", name)
    assert "Docker's manifest has no type for it" in refused.stderr


def test_rebase(stock: Stock, tierce: Tierce, place: Registry, tmp_path: Path) -> None:
    stock.add("old", content="old")
    stock.add("new", content="new")
    (tmp_path / "top.tar").write_bytes(TOP)
    tierce("append", "-q", "-b", "old", "-f", tmp_path / "top.tar", "-t", "app")
    bases = {name: f"docker://{place.name(f'bases/{name}:1')}" for name in ("old", "new")}
    for name, base in bases.items():
        tierce("copy", "-q", name, base)
    name = place.name("rebased:1")
    tierce("rebase", "--old-base", bases["old"], "--new-base", bases["new"], "-t", f"docker://{name}", "app")
    found, new = skopeo_config(name, tmp_path), config(tierce, "store:new")
    assert found["rootfs"]["diff_ids"] == [*new["rootfs"]["diff_ids"], str(DiffID.of(TOP))]
    assert found["history"] == [*new["history"], {"created_by": "append top.tar"}]
    manifest = json.loads(tierce("inspect", "--raw", f"docker://{name}").stdout)
    assert manifest["annotations"]["org.opencontainers.image.base.name"] == place.name("bases/new:1")
    wrong = tierce.attempt("rebase", "--old-base", "new", "--new-base", "old", "-t", f"docker://{name}", "app")
    assert "does not begin with the layers of the old base" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("mutate", "--label", "x", "-t", "y", "app"), "--label: want KEY=VALUE"),
        (("append", "-b", "app", "-f", "/nonexistent/x.tar", "-t", "y"), "read /nonexistent/x.tar: no such file"),
        (("mutate", "-t", "y", "absent"), "absent:latest not found"),
        (("mutate", "app"), "missing option '-t'"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_refused(stock: Stock, tierce: Tierce, words: tuple[str, ...], error: str) -> None:
    stock.add("app")
    done = tierce.attempt(*words)
    assert done.code != 0
    assert error in done.stderr
    assert tierce("images", "--format", "{{.Repository}}").stdout == "app\n"
