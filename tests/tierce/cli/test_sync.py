"""``tierce sync`` as it is typed: regsync's file, skopeo's words, a server, reports and exit codes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.registries import PLAIN, Emulator, emulate
from fixtures.registries.faults import refused
from tests.support.cli import Tierce
from tests.support.process import command, need
from tests.support.tiny_image import TinyImage, tiny_image


@pytest.fixture
def source() -> Iterator[Emulator]:
    with emulate(PLAIN) as registry:
        for tag in ("1.0", "1.1", "2.0"):
            add(registry, "team/app", tag, tiny_image({"file": tag.encode()}))
        yield registry


@pytest.fixture
def target() -> Iterator[Emulator]:
    with emulate(PLAIN) as registry:
        yield registry


def add(registry: Emulator, repository: str, tag: str, image: TinyImage) -> None:
    registry.add_image(repository, tag, image.manifest.media_type, image.manifest.raw, image.blobs)


def tags(registry: Emulator, repository: str) -> list[str]:
    return sorted(registry.content().get(repository, {}).get("tags", {}))


@pytest.fixture
def file(tmp_path: Path, source: Emulator, target: Emulator) -> Path:
    path = tmp_path / "sync.yml"
    path.write_text(
        f"""
version: 1
creds:
  - {{registry: "{source.host}", tls: disabled}}
  - {{registry: "{target.host}", tls: disabled}}
defaults: {{interval: 1s, backup: "old-{{{{.Ref.Tag}}}}"}}
sync:
  - {{source: "{source.host}/team/app", target: "{target.host}/app", type: repository, tags: {{semverRange: ["<2"]}}}}
"""
    )
    return path


def test_a_file_once_and_again(tierce: Tierce, file: Path, source: Emulator, target: Emulator, tmp_path: Path) -> None:
    plan = tierce("sync", "check", "-c", file).stdout
    assert plan.count("would copy: ") == 2
    assert "needs 2 pulls" in plan
    assert target.content() == {}
    done = tierce("sync", "-c", file, "--report", tmp_path / "report.json")
    assert "2 copied;" in done.stdout
    assert tags(target, "app") == ["1.0", "1.1"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["summary"] == {"copied": 2}
    assert {image["status"] for image in report["images"]} == {"copied"}
    add(source, "team/app", "1.1", tiny_image({"file": b"moved"}))
    tierce("sync", "once", "-c", file)
    assert tags(target, "app") == ["1.0", "1.1", "old-1.1"]
    assert tierce("sync", "-c", file).stdout.startswith("2 unchanged; 0 bytes")


def test_a_failure_is_told_and_is_the_exit_code(tierce: Tierce, file: Path, source: Emulator, target: Emulator) -> None:
    source.on("HEAD .*/manifests/1.0$", refused(403, "DENIED", "not yours"), times=100)
    done = tierce.attempt("sync", "-c", file)
    assert done.code == 1
    assert "failed: docker://" in done.stderr
    assert "tierce: sync: 1 failed, 0 were not tried" in done.stderr
    assert tags(target, "app") == ["1.1"]


def test_a_server_copies_what_is_missing_then_what_is_due(
    tierce: Tierce, file: Path, source: Emulator, target: Emulator
) -> None:
    server = tierce.start("sync", "server", "-c", file)
    try:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "")
        assert any("2 copied;" in line for line in lines)
        add(source, "team/app", "1.2", tiny_image({"file": b"later"}))
        assert any("1 copied, 2 unchanged;" in line for line in lines)
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()
    assert server.returncode == 143
    assert "1.2" in tags(target, "app")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sync"], "needs --config FILE, or --src and --dest"),
        (["sync", "-c", "absent.yml"], "absent.yml"),
        (["sync", "later", "-c", "x.yml"], "once, check, server"),
        (["sync", "--src", "docker", "--dest", "dir", "a"], "SOURCE and DESTINATION"),
        (["sync", "--src", "dir", "--dest", "docker", "/nowhere", "b"], "no image found at /nowhere"),
        (["sync", "-c", "x.yml", "--src", "dir"], "goes without --src"),
    ],
)
def test_what_is_wrong(tierce: Tierce, words: list[str], said: str) -> None:
    done = tierce.attempt(*words)
    assert done.code in {1, 125}
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.peer
@pytest.mark.parametrize("scoped", [False, True])
def test_directories_are_those_of_skopeo(tierce: Tierce, source: Emulator, tmp_path: Path, scoped: bool) -> None:
    words = ["sync", "--src", "docker", "--dest", "dir", *(["--scoped"] if scoped else []), "--src-tls-verify=false"]
    name = f"{source.host}/team/app"
    (tmp_path / "theirs").mkdir()
    command([need("skopeo"), *words, "--all", name, str(tmp_path / "theirs")])
    tierce(*words, name, tmp_path / "ours")
    theirs, ours = (
        {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (tmp_path / "theirs", tmp_path / "ours")
    )
    assert ours == theirs


@pytest.mark.peer
def test_skopeo_puts_directories_where_we_do(
    tierce: Tierce, source: Emulator, target: Emulator, tmp_path: Path
) -> None:
    tierce("sync", "--src", "docker", "--dest", "dir", "--src-tls-verify=false", f"{source.host}/team/app", tmp_path)
    words = ["sync", "--src", "dir", "--dest", "docker", "--dest-tls-verify=false", str(tmp_path)]
    tierce(*words, f"{target.host}/ours")
    command([need("skopeo"), *words, "--all", f"{target.host}/theirs"])
    found = target.content()
    assert found["ours/app"]["tags"] == found["theirs/app"]["tags"]
    assert len(found["ours/app"]["tags"]) == 3


@pytest.mark.peer
def test_a_file_of_skopeos(tierce: Tierce, source: Emulator, target: Emulator, tmp_path: Path) -> None:
    file = tmp_path / "skopeo.yml"
    file.write_text(
        f'"{source.host}":\n  tls-verify: false\n  images-by-tag-regex: {{team/app: "1$|^2"}}\n  images: {{team/app: ["1.0"]}}\n'
    )
    words = ["sync", "--src", "yaml", "--dest", "docker", "--dest-tls-verify=false", str(file)]
    tierce(*words, f"{target.host}/ours")
    command([need("skopeo"), *words, "--all", f"{target.host}/theirs"])
    found = target.content()
    assert found["ours/app"]["tags"] == found["theirs/app"]["tags"]
    assert len(found["ours/app"]["tags"]) == 3


def test_events_as_json(tierce: Tierce, file: Path, source: Emulator, target: Emulator) -> None:
    source.on("GET .*/blobs/", refused(404, "BLOB_UNKNOWN"))
    done = tierce.attempt("sync", "-c", file, "--jobs", "1", "--log-format", "json")
    assert done.code == 1
    *lines, failure = done.stderr.splitlines()
    assert failure == "tierce: sync: 1 failed, 0 were not tried"
    events = [json.loads(line) for line in lines]
    assert [one["status"] for one in events if one["event"] == "outcome"] == ["failed", "copied"]
    blobs = [one for one in events if one["event"] == "blob" and one["phase"] == "copied"]
    assert {one["image"] for one in blobs} == {f"docker://{target.host}/app:1.1"}
    assert all(one["bytes"] == one["total"] for one in blobs)
    assert [one["event"] for one in events[-2:]] == ["summary", "error"]
    assert done.stdout == ""
