"""What goes wrong for users: one clear line, docker's exit code, nothing left, the store whole."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Result, Tierce
from tests.support.process import free_port
from tests.support.registry import Login, Registry, registry

pytestmark = pytest.mark.root


def told(result: Result, *words: str, code: int = 1) -> None:
    """The command failed as it should, and said so in its last line."""
    assert result.code == code, str(result)
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("tierce: "), str(result)
    assert [line for line in lines if line.startswith("tierce: ")] == lines[-1:], "one line"
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[-1], str(result)


@pytest.fixture
def whole(tierce_with_busybox: Tierce) -> Iterator[Tierce]:
    """A Tierce whose store must be as before when the test ends."""
    before = names(tierce_with_busybox)
    yield tierce_with_busybox
    tierce_with_busybox("system", "check")
    assert names(tierce_with_busybox) == before
    for place in ("ingest", "leases", "trash"):
        assert os.listdir(tierce_with_busybox.root / place) == []


def names(tierce: Tierce) -> str:
    return tierce("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("locked") / "registry", login=Login("user", "right")) as running:
        yield running


@pytest.mark.parametrize(
    ("dockerfile", "excerpt", "words"),
    [
        ("FROM busybox\nRUNN true", ">>> RUNN true", ["unknown instruction: RUNN", "did you mean RUN?"]),
        ("FROM busybox\nCOPY absent /", ">>> COPY absent /", ['"/absent": not found']),
        ("FROM localhost:1/absent", ">>> FROM localhost:1/absent", ["connection refused"]),
        ("FROM busybox\nRUN exit 7", ">>> RUN exit 7", ["exit code: 7"]),
        ("FROM busybox\nRUN [\"/absent\"]", '>>> RUN ["/absent"]', ["/absent"]),
        ("FROM busybox\nUSER nobody-here\nRUN true", ">>> RUN true", ["nobody-here"]),
    ],
    ids=["instruction", "file", "image", "status", "command", "user"],
)  # fmt: skip
def test_dockerfiles(whole: Tierce, tmp_path: Path, dockerfile: str, excerpt: str, words: list[str]) -> None:
    (tmp_path / "Dockerfile").write_text(dockerfile)
    result = whole.attempt("build", "--network", "none", tmp_path)
    told(result, *words)
    assert excerpt in result.stderr
    whole("builder", "prune", "--all", "--force")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("build", "/absent"), ["/absent"]),
        (("build", "-f", "absent", "."), ["absent"]),
        (("inspect", "absent"), ["no such image: absent"]),
        (("rmi", "absent"), ["no such image: absent"]),
        (("load", "-i", "/absent"), ["/absent"]),
        (("tag", "busybox", "Upper"), ["lowercase"]),
        (("copy", "busybox", "nowhere://x"), ["nowhere"]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_things_that_are_not_there(whole: Tierce, tmp_path: Path, argv: tuple[str, ...], words: list[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    told(whole.attempt(*argv, cwd=empty), *words)


def test_a_secret_that_is_not_there(whole: Tierce, tmp_path: Path) -> None:
    """It is missed at once, even if no step asks for it and nothing else changed."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM busybox\nLABEL a=b")
    token = tmp_path / "token"
    build = ("build", "-q", "--secret", f"id=token,src={token}", tmp_path / "context")
    told(whole.attempt(*build), "secret token", str(token), "no such file")
    token.write_text("t")
    whole("rmi", "--force", whole(*build).stdout.strip())
    whole(*build)
    token.unlink()
    told(whole.attempt(*build), "secret token")
    whole("system", "prune", "--force")
    whole("builder", "prune", "--all", "--force")


def test_run_has_dockers_codes(whole: Tierce) -> None:
    told(whole.attempt("run", "--network", "none", "busybox", "absent"), "absent", code=127)
    told(whole.attempt("run", "--network", "none", "busybox", "/etc"), "/etc", code=126)
    told(whole.attempt("run", "--pull", "never", "absent"), "absent", code=125)
    assert whole.attempt("run", "--network", "none", "busybox", "sh", "-c", "exit 9").code == 9


def test_an_unreachable_registry(whole: Tierce) -> None:
    name = f"127.0.0.1:{free_port()}/x:1"
    told(whole.attempt("pull", name), "connection refused")
    whole("tag", "busybox", name)
    told(whole.attempt("push", name), "connection refused")
    whole("rmi", name)


def test_a_wrong_password(whole: Tierce, locked: Registry) -> None:
    wrong = whole.attempt("login", "-u", "user", "--password-stdin", locked.host, stdin="wrong")
    told(wrong)
    assert "wrong" not in wrong.stderr.replace("wrong user name or password", "")
    told(whole.attempt("pull", locked.name("x:1")))
    whole("login", "-u", "user", "--password-stdin", locked.host, stdin="right")
    told(whole.attempt("pull", locked.name("x:1")), "not found")


def test_a_registry_that_holds_a_damaged_blob(whole: Tierce, open_registry: Registry) -> None:
    name = open_registry.name("damaged:1")
    whole("tag", "busybox", name)
    whole("push", "-q", name)
    whole("rmi", name)
    largest = max(open_registry.directory.rglob("data"), key=lambda path: path.stat().st_size)
    whole_bytes = largest.read_bytes()
    largest.write_bytes(whole_bytes[:-1] + bytes([whole_bytes[-1] ^ 1]))
    other = Tierce(whole.root.parent / "other", whole.environment)
    try:
        told(other.attempt("pull", "-q", name), "digest")
    finally:
        largest.write_bytes(whole_bytes)
    assert names(other) == ""
    other("system", "check")
    other("pull", "-q", name)


def test_a_damaged_blob_in_the_store_is_named_and_not_spread(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    tierce = tierce_with_busybox
    blobs = tierce.root / "blobs" / "sha256"
    largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    largest.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    told(tierce.attempt("save", "-o", tmp_path / "out.tar", "busybox"))
    assert not (tmp_path / "out.tar").exists()
    checked = tierce.attempt("system", "check")
    assert checked.code == 1
    assert largest.name in checked.stdout


def hostile_layer(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"bad"))
    return out.getvalue()


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "/../escape"])
def test_a_tar_that_reaches_outside(whole: Tierce, tmp_path: Path, name: str) -> None:
    layer = hostile_layer(name)
    (tmp_path / "rootfs.tar").write_bytes(layer)
    told(whole.attempt("import", tmp_path / "rootfs.tar", "hostile"), "escape")
    archive = tmp_path / "image.tar"
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}
    members = {
        "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": ["l.tar"]}]).encode(),
        "c.json": json.dumps(config).encode(),
        "l.tar": layer,
    }
    with tarfile.open(archive, "w") as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    told(whole.attempt("load", "-i", archive))
    assert not list(whole.root.rglob("escape"))


def test_a_full_disk_while_pulling(whole: Tierce, open_registry: Registry, tmp_path: Path) -> None:
    name = open_registry.name("big:1")
    build = "FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=8\n"
    whole("build", "-q", "--network", "none", "-t", name, "-", stdin=build)
    whole("push", "-q", name)
    whole("rmi", name)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", small], check=True)
    try:
        tierce = Tierce(small / "root", whole.environment)
        told(tierce.attempt("pull", name), "it would leave less than 62914 bytes free")
        tierce = Tierce(small / "root", {**whole.environment, "TIERCE_KEEP_FREE": "0"})
        told(tierce.attempt("pull", name), "no space left on device")
        tierce("system", "check")
        assert names(tierce) == ""
    finally:
        subprocess.run(["umount", small], check=True)
    whole("builder", "prune", "--all", "--force")
