"""``tierce build`` of contexts that are not a directory, and of named ones: the real command, real servers."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from store.store import Store
from tests.support.cli import Tierce
from tests.support.git import Repository, git_daemon
from tests.support.memory import measure
from tests.support.process import command
from tests.support.web import Page, Web, web

pytestmark = pytest.mark.root

DOCKERFILE = "FROM scratch\nCOPY . /\n"


def tar(files: Mapping[str, str | tarfile.TarInfo]) -> bytes:
    """An archive; a TarInfo is an entry that is no file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
                continue
            entry = tarfile.TarInfo(name)
            entry.size, entry.uid = len(content), 7
            archive.addfile(entry, io.BytesIO(content.encode()))
    return out.getvalue()


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type, entry.linkname = kind, target
    return entry


def of_type(kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type = kind
    return entry


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds into a directory and gives what is there."""

    tierce: Tierce
    work: Path

    def run(self, *words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.tierce.argv("build", "--progress=plain", *words), input=stdin, capture_output=True, check=False,
            cwd=self.work, env=self.tierce.env(), timeout=120,
        )  # fmt: skip

    def files(self, *words: str | Path, stdin: bytes = b"") -> dict[str, str]:
        out = self.work / "out"
        subprocess.run(["rm", "-rf", out], check=True)
        done = self.run("--output", f"type=local,dest={out}", *words, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        self.nothing_left()
        return {
            str(path.relative_to(out)): path.read_text(errors="replace")
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }

    def refused(self, *words: str | Path, stdin: bytes = b"") -> str:
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 1, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        self.nothing_left()
        return done.stderr.decode()

    def nothing_left(self) -> None:
        with Store.open(self.tierce.root) as store:
            assert store.layers.directories() == {layer.directory for layer in store.metadata.layers()}
            assert os.listdir(store.root / "ingest") == []


@pytest.fixture
def builder(tierce: Tierce, tmp_path: Path) -> Builder:
    (tmp_path / "work").mkdir()
    return Builder(tierce, tmp_path / "work")


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as running:
        yield running


@pytest.mark.parametrize(
    "packed",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["tar", "gzip", "bzip2", "xz", "zstd"],
)
def test_a_tar_on_standard_input(builder: Builder, packed: Callable[[bytes], bytes]) -> None:
    """No ignore file counts, as docker's client does not know one inside a tar."""
    files = {"Dockerfile": DOCKERFILE, "a/b": "1", ".dockerignore": "a"}
    assert builder.files("-", stdin=packed(tar(files))) == files


def test_a_tar_that_comes_slowly_through_a_pipe(builder: Builder) -> None:
    data = tar({"Dockerfile": DOCKERFILE, "a": "1"})
    argv = builder.tierce.argv("build", "-q", "-")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=builder.tierce.env()) as process:
        assert process.stdin is not None
        for start in range(0, len(data), 700):
            process.stdin.write(data[start : start + 700])
            process.stdin.flush()
        process.stdin.close()
        assert process.wait(60) == 0


def test_the_dockerfile_in_a_tar_may_lie_elsewhere(builder: Builder) -> None:
    data = tar({"d/x.Dockerfile": "FROM scratch\nCOPY a /", "a": "1", "l": link("/d/x.Dockerfile")})
    assert builder.files("-f", "d/x.Dockerfile", "-", stdin=data) == {"a": "1"}
    assert builder.files("-f", "../../d/x.Dockerfile", "-", stdin=data) == {"a": "1"}
    assert builder.files("-f", "l", "-", stdin=data) == {"a": "1"}


def test_a_dockerfile_on_standard_input_has_no_context(builder: Builder) -> None:
    assert builder.files("-", stdin=b"FROM scratch\nCOPY <<A /a\n1\nA\n") == {"a": "1\n"}
    assert '"/x": not found' in builder.refused("-", stdin=b"FROM scratch\nCOPY x /")


def test_a_url_as_context(builder: Builder, server: Web) -> None:
    server.pages |= {
        "/c.tgz": Page(gzip.compress(tar({"Dockerfile": DOCKERFILE, "D": "FROM scratch\nCOPY D /"})), etag='"1"'),
        "/Dockerfile": Page(b"FROM scratch\nCOPY <<A /a\n1\nA\n"),
    }
    assert set(builder.files(server.url("/c.tgz"))) == {"Dockerfile", "D"}
    assert set(builder.files("-f", "D", server.url("/c.tgz"))) == {"D"}
    assert server.asked() == ["GET /c.tgz 200", "HEAD /c.tgz 304"]
    assert builder.files(server.url("/Dockerfile")) == {"a": "1\n"}


def test_the_dockerfile_may_be_a_url(builder: Builder, server: Web) -> None:
    server.pages["/x/Other"] = Page(b"FROM scratch\nCOPY a absent /")
    (builder.work / "a").write_text("1")
    error = builder.refused("-f", server.url("/x/Other"), ".")
    assert "Other:2" in error
    assert ">>> COPY a absent /" in error


def test_a_repository_as_context(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "git").mkdir()
    repository = Repository.create(tmp_path / "git")
    repository.commit(
        {"Dockerfile": DOCKERFILE, "f": "1", ".dockerignore": "f", "sub/Dockerfile": DOCKERFILE, "sub/x": "2"}
    )
    repository.git("push", "-q", "origin", "HEAD:refs/heads/old")
    repository.commit({"f": "new"})
    with git_daemon(tmp_path / "git", tmp_path / "log") as url:
        assert builder.files(f"{url}/app.git")["f"] == "new"
        assert builder.files(f"{url}/app.git#old")["f"] == "1"
        assert builder.files(f"{url}/app.git#old:sub") == {"Dockerfile": DOCKERFILE, "x": "2"}
        kept = builder.files("--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", f"{url}/app.git#old")
        assert ".git/HEAD" in kept
        assert "has no directory 'absent'" in builder.refused(f"{url}/app.git#:absent")
        assert "is not a directory" in builder.refused(f"{url}/app.git#:f")
        assert "no such file in" in builder.refused("-f", "absent", f"{url}/app.git")


def test_named_contexts_of_every_kind(builder: Builder, server: Web, tmp_path: Path) -> None:
    (tmp_path / "git").mkdir()
    repository = Repository.create(tmp_path / "git")
    repository.commit({"f": "git"})
    server.pages["/c.tar"] = Page(tar({"f": "url"}))
    directory = builder.work / "dir"
    directory.mkdir()
    for name in ("f", "hidden"):
        (directory / name).write_text("dir")
    (directory / ".dockerignore").write_text("hidden\n.dockerignore")
    builder.tierce(
        "build",
        "-q",
        "-t",
        "stored",
        "--build-context",
        f"d={directory}",
        "-",
        stdin="FROM scratch\nCOPY --from=d f /\n",
    )
    builder.tierce(
        "build",
        "-q",
        "--output",
        f"type=oci,dest={builder.work}/layout,tar=false,name=stored:v1",
        "--build-context",
        f"d={directory}",
        "-",
        stdin="FROM scratch\nCOPY --from=d f /layout\n",
    )
    with git_daemon(tmp_path / "git", tmp_path / "log") as url:
        names = {
            "one": str(directory), "two": f"{url}/app.git", "three": server.url("/c.tar"),
            "four": "docker-image://stored", "five": f"oci-layout://{builder.work}/layout",
        }  # fmt: skip
        words = [word for name, value in names.items() for word in ("--build-context", f"{name}={value}")]
        lines = ["FROM five", *(f"COPY --from={name} / /{name}/" for name in names)]
        assert builder.files(*words, "-", stdin="\n".join(lines).encode()) == {
            "layout": "dir", "one/f": "dir", "two/f": "git", "three/f": "url", "four/f": "dir", "five/layout": "dir",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--build-context", "x"], "invalid build context 'x'"),
        (["--build-context", "x=absent"], 'build context "absent" is not a directory'),
        (["--build-context", "x=ftp://host/y"], "ftp:// is not supported"),
        (["--build-context", "x=docker-image://UPPER"], "invalid"),
        (["--build-context", "x=oci-layout://absent"], "is not an OCI image layout"),
        (["--build-context", "x=http://127.0.0.1:1/y"], "connection refused"),
        (["--build-context", "x=git://127.0.0.1:1/y"], "git ls-remote"),
    ],
)
def test_named_contexts_that_are_refused(builder: Builder, words: list[str], problem: str) -> None:
    assert problem in builder.refused(*words, "-", stdin=b"FROM x")


@pytest.mark.parametrize(
    ("files", "words", "problem"),
    [
        ({"Dockerfile": DOCKERFILE, "../../../../../../../tmp/escaped-5c": "x"}, (), "escaped-5c"),
        ({"Dockerfile": DOCKERFILE, "l": link("/tmp"), "l/escaped-5c": "x"}, (), None),
        ({"Dockerfile": DOCKERFILE, "l": link("/etc/passwd", tarfile.LNKTYPE)}, (), "archive entry"),
        ({"Dockerfile": link("/etc/passwd")}, (), "no such file in standard input"),
        ({"Dockerfile": link("../../../../../../../../etc/passwd")}, (), "no such file in standard input"),
        ({"Dockerfile": of_type(tarfile.FIFOTYPE)}, (), "is not a regular file"),
        ({"Dockerfile": of_type(tarfile.DIRTYPE)}, (), "is not a regular file"),
        ({"a": "no Dockerfile"}, (), "no such file in standard input"),
        ({"Dockerfile": "FROM scratch\nCOPY l/passwd /", "l": link("/etc")}, (), "not found"),
        ({"Dockerfile": "FROM scratch\nCOPY l /", "l": link("../../../../../../etc/passwd")}, (), "not found"),
        ({"Dockerfile": "FROM scratch\nCOPY ../../etc/passwd /"}, (), '"/etc/passwd": not found'),
    ],
)  # fmt: skip
def test_a_hostile_tar_stays_where_it_is(
    builder: Builder, files: dict[str, str | tarfile.TarInfo], words: tuple[str, ...], problem: str | None
) -> None:
    if problem is None:
        assert builder.run(*words, "-", stdin=tar(files)).returncode == 0
    else:
        assert problem in builder.refused(*words, "-", stdin=tar(files))
    assert not Path("/tmp/escaped-5c").exists()


@pytest.mark.parametrize(
    ("stdin", "words", "problem"),
    [
        (b"", ["-"], "empty"),
        (b"\0" * 100, ["-"], "neither a tar nor a Dockerfile"),
        (gzip.compress(b"FROM scratch"), ["-"], "neither a tar nor a Dockerfile"),
        (gzip.compress(tar({"Dockerfile": DOCKERFILE, "f": "1" * 99999}))[:200], ["-"], "archive"),
        (tar({"Dockerfile": DOCKERFILE, "f": "1" * 99999})[:20000], ["-"], "archive"),
        (b"FROM scratch", ["-f", "-", "-"], "can't use standard input for both"),
        (b"FROM scratch", ["-f", "x", "-"], "ambiguous Dockerfile"),
        (b"", ["absent"], 'path "absent" not found'),
        (b"", ["http://127.0.0.1:1/x"], "download http://127.0.0.1:1/x: reach server"),
        (b"", ["https://host/x.git#--upload-pack=x"], "is no branch, tag or commit"),
    ],
)
def test_contexts_that_are_refused(builder: Builder, stdin: bytes, words: list[str], problem: str) -> None:
    assert problem in builder.refused(*words, stdin=stdin)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_dockerfile_that_is_no_file(builder: Builder, make: Callable[[Path], None]) -> None:
    make(builder.work / "Dockerfile")
    assert "is not a regular file" in builder.refused(".")
    assert "is not a regular file" in builder.refused("-f", "Dockerfile", ".")


@pytest.mark.parametrize("name", ["Dockerfile", "Containerfile", "dockerfile", "other/file"])
def test_where_the_dockerfile_is_looked_for(builder: Builder, name: str) -> None:
    """It and the ignore file may be ignored, and still count; a link to it may lead anywhere."""
    text = "FROM scratch\nCOPY . /\n"
    (builder.work / ".dockerignore").write_text("out\nhidden\n.*\n*ockerfile\nContainerfile\nother\n")
    (builder.work / "hidden").write_text("")
    (builder.work / "shown").write_text("1")
    (builder.work / "other").mkdir()
    (builder.work.parent / "elsewhere").write_text(text)
    (builder.work / name).symlink_to(builder.work.parent / "elsewhere")
    words = ("-f", name) if "/" in name else ()
    assert builder.files(*words, ".") == {"shown": "1"}


@pytest.mark.parametrize("kind", ["one line", "many lines", "zeros"])
def test_a_huge_dockerfile_is_refused_unread(builder: Builder, kind: str, tmp_path: Path) -> None:
    with (builder.work / "Dockerfile").open("wb") as file:
        if kind != "zeros":
            file.write((b"FROM scratch\n" if kind == "many lines" else b"FROM ") * (1 << 20))
        file.truncate(1 << 30)
    for words in (["."], ["-f", "-", "."]):
        with (builder.work / "Dockerfile").open("rb") as stdin:
            argv = builder.tierce.argv("build", "-q", *words)
            done = measure(argv, tmp_path, stdin=stdin, cwd=builder.work, env=builder.tierce.env())
        assert done.code == 1
        assert b"is larger than 10485760 bytes" in done.stderr
        assert done.peak_kib < 150 << 10


def test_a_bomb_fills_no_memory_and_leaves_the_disk_as_it_was(builder: Builder, tmp_path: Path) -> None:
    """Eight gigabytes of zeros in a few megabytes, and a store with room for little of it."""
    small = tmp_path / "small"
    small.mkdir()
    command(["mount", "-t", "tmpfs", "-o", "size=16m", "none", small])
    try:
        bomb = Builder(Tierce(small / "root"), builder.work)
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb") as out:
            entry = tarfile.TarInfo("big")
            entry.size = 8 << 30
            out.write(entry.tobuf())
        zeros = gzip.compress(bytes(1 << 24), 9)
        data = packed.getvalue() + zeros * 20
        assert "no space left on device" in bomb.refused("-", stdin=data)
        assert bomb.files("-", stdin=b"FROM scratch\nCOPY <<A /a\n1\nA\n") == {"a": "1\n"}
    finally:
        command(["umount", small])
