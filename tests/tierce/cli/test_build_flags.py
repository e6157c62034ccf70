"""Flags of ``tierce build`` that change the image, its base or what of the cache counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Tierce

pytestmark = pytest.mark.root

TEXT = "FROM scratch\nLABEL a=1 b=2\nENV X=1 Y=2\nCOPY <<E /f\nE\n"


def config(tierce: Tierce, *flags: str, text: str = TEXT) -> dict[str, Any]:
    tierce("build", "-q", "--network=none", "-t", "made", *flags, "-", stdin=text)
    found: dict[str, Any] = json.loads(tierce("inspect", "made").stdout)[0]
    return found


def test_variables_and_labels_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "here")
    tierce = Tierce(tmp_path / "root")
    flags = (
        "--env=Z=3",
        "--env=X=new",
        "--env=FROM_HERE",
        "--env=ABSENT",
        "--unsetenv=Y",
        "--unsetlabel=a",
        "--label=c=3",
    )
    found = config(tierce, *flags)["Config"]
    assert found["Env"][1:] == ["X=new", "Z=3", "FROM_HERE=here"]
    assert found["Labels"] == {"b": "2", "c": "3"}


def test_the_first_base_may_be_another(tierce_with_busybox: Tierce) -> None:
    text = "FROM absent.invalid/x AS one\nRUN echo hi > /hi\nFROM scratch\nCOPY --from=one /hi /hi\n"
    found = config(tierce_with_busybox, "--from=busybox", "--pull=never", text=text)
    assert len(found["RootFS"]["Layers"]) == 1


def test_none_is_fetched_if_none_may(tmp_path: Path) -> None:
    done = Tierce(tmp_path / "root").attempt("build", "--pull=never", "-", stdin="FROM absent.invalid/x\n")
    assert "image absent.invalid/x:latest is not in the store, and --pull=never fetches none" in done.stderr


def test_all_layers_may_be_one(tierce_with_busybox: Tierce) -> None:
    text = "FROM busybox\nRUN rm -rf /bin /sbin /usr\nCOPY <<E /f\nE\n"
    some = config(tierce_with_busybox, "--squash", text=text)
    one = config(tierce_with_busybox, "--squash-all", text=text)
    assert (len(some["RootFS"]["Layers"]), len(one["RootFS"]["Layers"])) == (2, 1)
    history = tierce_with_busybox("history", "--format={{.Size}}", "made").stdout.split()
    assert sum(size != "0B" for size in history) == 1
    base = int(tierce_with_busybox("inspect", "--format={{.Size}}", "busybox").stdout)
    assert one["Size"] < base / 2, "what was removed is in no layer"


def test_results_grow_too_old(tierce_with_busybox: Tierce) -> None:
    text = "FROM busybox\nRUN cat /proc/uptime > /when\n"
    first = config(tierce_with_busybox, text=text)["RootFS"]
    assert config(tierce_with_busybox, "--cache-ttl=1h", text=text)["RootFS"] == first
    again = config(tierce_with_busybox, "--cache-ttl=1us", text=text)["RootFS"]
    assert again != first
    assert config(tierce_with_busybox, "--cache-ttl=1h", text=text)["RootFS"] == again


def test_parts_of_a_platform(tmp_path: Path) -> None:
    found = config(Tierce(tmp_path / "root"), "--arch=arm", "--variant=v6")
    assert (found["Os"], found["Architecture"], found["Variant"]) == ("linux", "arm", "v6")


def test_proxies_may_be_left_out(tierce_with_busybox: Tierce, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test")
    build = ("build", "--no-cache", "--network=none", "--progress=plain", "-")
    text = "FROM busybox\nRUN echo proxy=$HTTP_PROXY.\n"
    assert "proxy=http://proxy.test." in tierce_with_busybox(*build, stdin=text).stderr
    assert "proxy=." in tierce_with_busybox(*build[:-1], "--http-proxy=false", "-", stdin=text).stderr


def test_a_list_grows_with_each_build(tmp_path: Path) -> None:
    """As with podman: a job a platform, then one push."""
    tierce = Tierce(tmp_path / "root")
    for platform in ("linux/amd64", "linux/arm64,linux/s390x", "linux/amd64"):
        tierce("build", "-q", "--manifest=app:all", f"--platform={platform}", "-", stdin=TEXT)
    found = json.loads(tierce("manifest", "inspect", "app:all").stdout)
    assert [entry["platform"]["architecture"] for entry in found["manifests"]] == ["amd64", "arm64", "s390x"]
    tierce("system", "check")
    tierce("build", "-q", "-t", "one", "-", stdin=TEXT)
    refused = tierce.attempt("build", "--manifest=one", "-", stdin=TEXT)
    assert "one:latest is one image, and no manifest list" in refused.stderr
