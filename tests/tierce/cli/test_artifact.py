"""``tierce artifact`` with a real registry, and with oras-py at the other end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.registries import PLAIN, Emulator, emulate
from fixtures.registries.faults import with_body
from image.descriptor import Descriptor
from image.manifest import Manifest
from tests.support.cli import Tierce
from tests.support.registry import Registry
from tests.support.tiny_image import tiny_image

SBOM = "application/vnd.example.sbom"
PLAIN_HTTP = "--tls-verify=false"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with emulate(PLAIN) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with two files, one of them below another."""
    here = tmp_path / "files"
    (here / "sub").mkdir(parents=True)
    (here / "a.txt").write_text("one\n")
    (here / "sub" / "b.json").write_text("{}")
    return here


def add_image(emulator: Emulator, name: str = "app", tag: str = "1") -> str:
    image = tiny_image()
    return emulator.add_image(name, tag, image.manifest.media_type, image.manifest.raw, image.blobs)


@pytest.mark.peer
def test_pushed_files_come_back(tierce: Tierce, place: Registry, files: Path, tmp_path: Path) -> None:
    name = place.name("artifacts/files:1")
    done = tierce("artifact", "push", PLAIN_HTTP, "--artifact-type", SBOM, "-a", "k=v", name,
                  "a.txt:text/plain", "sub/b.json", cwd=files)  # fmt: skip
    again = tierce("artifact", "pull", PLAIN_HTTP, "-o", tmp_path / "out", name)
    assert again.stdout.split() == [f"{tmp_path}/out/a.txt", f"{tmp_path}/out/sub/b.json"]
    assert (tmp_path / "out" / "sub" / "b.json").read_text() == "{}"
    manifest = json.loads(tierce("inspect", "--raw", PLAIN_HTTP, f"docker://{name}").stdout)
    assert manifest["artifactType"] == SBOM
    assert manifest["annotations"]["k"] == "v"
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        "text/plain",
        "application/vnd.oci.image.layer.v1.tar",
    ]
    assert done.stdout.startswith("sha256:")


@pytest.mark.peer
def test_oras_pulls_what_we_push_and_we_what_oras_pushes(
    tierce: Tierce, place: Registry, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oras = pytest.importorskip("oras.client").OrasClient(hostname=place.host, insecure=True)
    monkeypatch.chdir(files)
    ours, theirs = place.name("artifacts/ours:1"), place.name("artifacts/theirs:1")
    tierce("artifact", "push", PLAIN_HTTP, ours, "a.txt:text/plain", "sub/b.json", cwd=files)
    pulled = oras.pull(target=ours, outdir=str(tmp_path / "oras"))
    assert sorted(os.path.relpath(path, tmp_path / "oras") for path in pulled) == ["a.txt", "sub/b.json"]
    assert (tmp_path / "oras" / "a.txt").read_text() == "one\n"
    oras.push(target=theirs, files=["a.txt:text/plain", "sub/b.json"])
    found = tierce("artifact", "pull", PLAIN_HTTP, "-o", tmp_path / "tierce", theirs).stdout.split()
    assert sorted(found) == [f"{tmp_path}/tierce/a.txt", f"{tmp_path}/tierce/b.json"]  # it takes the last name
    assert (tmp_path / "tierce" / "a.txt").read_text() == "one\n"


@pytest.mark.parametrize("behaviour", ["api", "missing"])
def test_what_is_attached_is_discovered(tierce: Tierce, files: Path, behaviour: str) -> None:
    from dataclasses import replace

    with emulate(replace(PLAIN, referrers=behaviour, sends_subject=behaviour == "api")) as emulator:  # type: ignore[arg-type]
        image = add_image(emulator)
        name = f"{emulator.host}/app:1"
        sbom = tierce("artifact", "attach", PLAIN_HTTP, "--artifact-type", SBOM, name, files / "a.txt").stdout.strip()
        signature = tierce("artifact", "attach", PLAIN_HTTP, "--artifact-type", "application/vnd.example.sig",
                           f"{emulator.host}/app@{sbom}", files / "sub" / "b.json").stdout.strip()  # fmt: skip
        tree = tierce("artifact", "discover", PLAIN_HTTP, name).stdout
        assert emulator.content()["app"]["tags"]["1"] == image
        assert tree == (
            f"{emulator.host}/app@{image}\n└── {SBOM} {sbom}\n    └── application/vnd.example.sig {signature}\n"
        )
        document = json.loads(tierce("artifact", "discover", PLAIN_HTTP, "--format", "json", name).stdout)
        assert document["digest"] == image
        assert document["referrers"][0]["referrers"][0]["digest"] == signature
        other = ("artifact", "discover", PLAIN_HTTP, "--artifact-type", "text/other", "--format", "table", name)
        assert tierce(*other).stdout == ""
        tierce("artifact", "pull", PLAIN_HTTP, "-o", files / "out", f"{emulator.host}/app@{sbom}")
        assert (files / "out" / "a.txt").read_text() == "one\n"


def test_a_second_push_sends_no_blob(tierce: Tierce, emulator: Emulator, files: Path) -> None:
    words = ("artifact", "push", "-q", PLAIN_HTTP, f"{emulator.host}/files:1", files / "a.txt")
    tierce(*words)
    emulator.requests.clear()
    tierce(*words)
    assert emulator.seen("POST|PATCH") == []
    assert [seen.path for seen in emulator.seen("PUT")] == ["/v2/files/manifests/1"]


@pytest.mark.parametrize("title", ["../escape", "/etc/escape", "a/../../escape", "", ".", "a/\0b"])
def test_a_name_that_leads_out_is_refused(tierce: Tierce, emulator: Emulator, tmp_path: Path, title: str) -> None:
    _add_artifact(emulator, title)
    done = tierce.attempt("artifact", "pull", PLAIN_HTTP, "-o", tmp_path / "in" / "out", f"{emulator.host}/bad:1")
    assert done.code == 1
    assert "leads out of the directory" in done.stderr
    assert list(tmp_path.rglob("*escape*")) == []


def test_a_link_in_the_way_is_not_followed(tierce: Tierce, emulator: Emulator, tmp_path: Path) -> None:
    _add_artifact(emulator, "sub/file")
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    done = tierce.attempt("artifact", "pull", PLAIN_HTTP, "-o", tmp_path / "out", f"{emulator.host}/bad:1")
    assert done.code == 1
    assert "is a link" in done.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_with_the_wrong_content_does_not_appear(tierce: Tierce, emulator: Emulator, tmp_path: Path) -> None:
    _add_artifact(emulator, "file")
    emulator.on("GET .*/blobs/", with_body(lambda _data: b"other content!"), times=100)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("old")
    done = tierce.attempt("artifact", "pull", PLAIN_HTTP, "-o", tmp_path / "out", f"{emulator.host}/bad:1")
    assert done.code == 1
    assert [(path.name, path.read_text()) for path in (tmp_path / "out").iterdir()] == [("file", "old")]


def _add_artifact(emulator: Emulator, title: str) -> None:
    config = Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json")
    layer = Descriptor.of(b"some content..", "text/plain").with_annotations({"org.opencontainers.image.title": title})
    manifest = Manifest.build(config, [layer], artifact_type=SBOM)
    blobs = {str(config.digest): b"{}", str(layer.digest): b"some content.."}
    emulator.add_image("bad", "1", manifest.media_type, manifest.raw, blobs)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["push", "127.0.0.1:9/x:1"], "nothing to push"),
        (["push", "127.0.0.1:9/x:1", "absent"], "read absent: no such file"),
        (["push", "127.0.0.1:9/x:1", "/tmp"], "is a directory: pack it"),
        (["push", "127.0.0.1:9/x:1", "f", "./f"], "two files would be called 'f'"),
        (["push", "-a", "novalue", "127.0.0.1:9/x:1", "f"], "want KEY=VALUE"),
        (["attach", "127.0.0.1:9/x:1", "f"], "attach needs --artifact-type"),
    ],
)
def test_what_is_wrong(tierce: Tierce, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "f").write_text("")
    done = tierce.attempt("artifact", *words, cwd=tmp_path)
    assert done.code in {1, 125}
    assert said in done.stderr


def test_an_existing_file_is_kept_on_request(tierce: Tierce, emulator: Emulator, tmp_path: Path) -> None:
    _add_artifact(emulator, "file")
    words = ("artifact", "pull", PLAIN_HTTP, "-o", tmp_path, f"{emulator.host}/bad:1")
    (tmp_path / "file").write_text("mine")
    assert "exists already" in tierce.attempt(*words, "--keep-old-files").stderr
    assert (tmp_path / "file").read_text() == "mine"
    tierce(*words)
    assert (tmp_path / "file").read_text() == "some content.."
