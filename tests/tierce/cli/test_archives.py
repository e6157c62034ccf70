"""``save``, ``load``, ``import``: archives in and out of a real store."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.tierce.conftest import Stock


def _rootfs(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in names.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_save_and_load_give_the_same_image(stock: Stock, tierce: Tierce, tmp_path: Path) -> None:
    stock.add("app:1", content="1")
    stock.add("app:2", content="2")
    ids = tierce("images", "--no-trunc", "--format", "{{.Tag}} {{.ID}}").stdout
    tierce("save", "-o", tmp_path / "both.tar", "app:1", "app:2")
    other = Tierce(tmp_path / "other")
    assert other("load", "-i", tmp_path / "both.tar").stdout == "Loaded image: app:1\nLoaded image: app:2\n"
    assert set(other("images", "--no-trunc", "--format", "{{.Tag}} {{.ID}}").stdout.splitlines()) == set(
        ids.splitlines()
    )


def test_save_to_a_pipe_and_load_from_one(stock: Stock, tierce: Tierce, tmp_path: Path) -> None:
    stock.add("app")
    saved = subprocess.run(tierce.argv("save", "app"), capture_output=True, check=True)
    assert saved.stderr == b""
    other = Tierce(tmp_path / "other")
    loaded = subprocess.run(
        other.argv("load", "-q"), input=gzip.compress(saved.stdout), capture_output=True, check=True
    )
    assert loaded.stdout == b"Loaded image: app:latest\n"


def test_an_image_without_a_name_is_loaded_by_id(stock: Stock, tierce: Tierce, tmp_path: Path) -> None:
    stock.add()
    image = tierce("images", "-q", "--no-trunc").stdout.strip()
    tierce("save", "-o", tmp_path / "one.tar", image)
    other = Tierce(tmp_path / "other")
    assert other("load", "-i", tmp_path / "one.tar").stdout == f"Loaded image ID: {image}\n"


def test_save_of_an_absent_image_writes_nothing(tierce: Tierce, tmp_path: Path) -> None:
    done = tierce.attempt("save", "-o", tmp_path / "out.tar", "absent")
    assert done.code == 1
    assert "absent" in done.stderr
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize(
    "content", [b"", b"not a tar", gzip.compress(b"x" * 1000)], ids=["empty", "text", "gzip of no tar"]
)
def test_what_is_no_archive_is_refused(content: bytes, tierce: Tierce, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    for argv in (("load", "-i", tmp_path / "file"), ("import", tmp_path / "file", "x")):
        done = tierce.attempt(*argv)
        assert done.code == 1
        assert done.stderr.startswith("tierce: ")
        assert done.stderr.count("\n") == 1, done.stderr
    assert tierce("images", "-q").stdout == ""
    assert tierce("system", "check").code == 0


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_import(packed: bool, tierce: Tierce, tmp_path: Path) -> None:
    tar = _rootfs({"bin/tool": b"#!"})
    (tmp_path / "rootfs.tar").write_bytes(gzip.compress(tar) if packed else tar)
    changes = [
        "-c",
        'CMD ["/bin/tool"]',
        "-c",
        "ENV A=1 B=$A",
        "-c",
        "WORKDIR /w",
        "-c",
        "LABEL k=v",
        "-c",
        "EXPOSE 80",
    ]
    image = tierce("import", *changes, "-m", "by hand", tmp_path / "rootfs.tar", "tool:1").stdout.strip()
    [document] = json.loads(tierce("inspect", "tool:1").stdout)
    assert document["Id"] == image
    config = document["Config"]
    assert (config["Cmd"], config["Env"], config["WorkingDir"]) == (["/bin/tool"], ["A=1", "B="], "/w")
    assert (config["Labels"], config["ExposedPorts"]) == ({"k": "v"}, {"80/tcp": {}})
    assert document["Comment"] == "by hand"
    assert tierce("system", "check").code == 0


def test_the_same_tar_gives_the_same_layer(tierce: Tierce, tmp_path: Path) -> None:
    tar = _rootfs({"a": b"x" * 5_000_000})
    (tmp_path / "plain.tar").write_bytes(tar)
    (tmp_path / "packed.tar.gz").write_bytes(gzip.compress(tar))
    for name in ("plain.tar", "packed.tar.gz"):
        tierce("import", tmp_path / name, name.partition(".")[0])
    layers = {tierce("inspect", "-f", "{{json .RootFS.Layers}}", name).stdout for name in ("plain", "packed")}
    assert len(layers) == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("RUN true", "RUN is not possible here"),
        ("NONSENSE x", "unknown instruction: NONSENSE"),
        ("FROM x", "FROM"),
    ],
)
def test_changes_refused(change: str, error: str, tierce: Tierce, tmp_path: Path) -> None:
    (tmp_path / "rootfs.tar").write_bytes(_rootfs({"a": b"x"}))
    done = tierce.attempt("import", "-c", change, tmp_path / "rootfs.tar", "x")
    assert done.code == 1
    assert error in done.stderr
    assert "Traceback" not in done.stderr
    assert tierce("images", "-q").stdout == ""


@pytest.mark.parametrize(
    ("source", "error"), [("http://x/y.tar", "URLs are not supported"), ("/absent", "no such file or directory")]
)
def test_sources_refused(source: str, error: str, tierce: Tierce) -> None:
    done = tierce.attempt("import", source)
    assert done.code == 1
    assert error in done.stderr


@pytest.mark.root
@pytest.mark.parametrize("name", ["../escape", "/../../escape"])
def test_a_hostile_tar_stays_inside_or_is_refused(name: str, tierce: Tierce, tmp_path: Path) -> None:
    (tmp_path / "rootfs.tar").write_bytes(_rootfs({name: b"x"}))
    tierce.attempt("import", tmp_path / "rootfs.tar", "x")
    assert not list(tmp_path.rglob("escape")) or all(
        "overlay2" in path.parts and "diff" in path.parts for path in tmp_path.rglob("escape")
    )
