"""COPY and ADD row by row: the same tree as docker's BuildKit makes, or the same refusal.

Left out, because docker 20.10 does not do what later versions do: ``--chown`` of an archive's
entries, ``--chmod`` of a download, setuid with ``--chmod``, and what it refuses in ``--chmod``.
An archive's implicit directories inherit a setgid directory's bit there and not here.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.test_same_build import built_by_docker, built_by_tierce
from tests.support.cli import Tierce
from tests.support.compare import differences
from tests.support.context import Directory, Entry, File, Symlink, write_context
from tests.support.dockerd import Docker
from tests.support.web import Page, Web, web

pytestmark = [pytest.mark.root, pytest.mark.peer]

TREE: dict[str, Entry] = {
    "f": File("f\n", 0o640),
    "g": File("g\n", 0o4755),
    "[x]y": File("odd\n"),
    "a b": File("blank\n"),
    "d/one": File("1\n", 0o600),
    "d/sub": Directory(0o700),
    "d/sub/two": File("2\n"),
    "d/empty": Directory(0o1777),
    "d/link": Symlink("one"),
    "d/dir-link": Symlink("sub"),
    "to-d": Symlink("d"),
    "text.tar.gz": File("no archive\n"),
    "swap/as-dir/n/f": File("in a directory\n"),
    "swap/as-file/n": File("a file\n"),
    "swap/as-link/n": Symlink("/real"),
}


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, mode, target in (
            ("in", tarfile.DIRTYPE, 0o750, ""), ("in/file", tarfile.REGTYPE, 0o640, ""),
            ("in/hard", tarfile.LNKTYPE, 0o640, "in/file"), ("in/soft", tarfile.SYMTYPE, 0o777, "file"),
            ("in/pipe", tarfile.FIFOTYPE, 0o600, ""), ("in/null", tarfile.CHRTYPE, 0o666, ""),
            ("/absolute", tarfile.REGTYPE, 0o4711, ""), ("no/parent", tarfile.REGTYPE, 0o600, ""),
        ):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.linkname, entry.uid, entry.gid = kind, mode, target, 3, 4
            entry.devmajor, entry.devminor = 1, 3
            tar.addfile(entry)
    return out.getvalue()


PREPARED = (
    "mkdir -p /ex/sub /ex/d /real && chown -R 33:8 /ex && chmod 2775 /ex /ex/sub && echo old > /ex/one"
    " && ln -s /real /link && ln -s /nowhere/at/all /dangling && echo file > /file && ln -s /file /to-file"
)

SAME = [
    "COPY f /new", "COPY f /new/", "COPY f /ex", "COPY f /ex/", "COPY f /a/b/c", "COPY f /a/b/c/",
    "COPY f /link", "COPY f /link/", "COPY f /link/deep/", "COPY f /to-file", "COPY f g /ex/", "COPY f /ex/one",
    "COPY d /ex", "COPY d/ /ex/", "COPY d /new", "COPY d /link", "COPY to-d /new", "COPY d/link /new", "COPY d/dir-link /new",
    "COPY d/sub/.. /new", "COPY ../../f /new", "COPY /f /new", "COPY ./f /new", "COPY d/* /new/", "COPY [fg] /new/",
    "COPY [[]x]y /new/", 'COPY ["a b", "/new name"]', "COPY none* /new/", "COPY ?/sub /new", "COPY f* /renamed",
    "COPY --chown=1:2 f /ex/", "COPY --chown=1:2 d /ex/", "COPY --chown=1:2 d /new/", "COPY --chown=1:2 f /a/b/c/",
    "COPY --chown=daemon f /new", "COPY --chown=daemon:mail d /new", "COPY --chown=daemon:12 f /new", "COPY --chown=9 f /new",
    "COPY --chown=:8 f /new", "COPY --chmod=750 f /ex/", "COPY --chmod=600 f d/one /ex/",
    "USER daemon\nCOPY f /new", "WORKDIR /w\nCOPY f .", "WORKDIR /w\nCOPY f ./", "WORKDIR /w/x\nCOPY f ../y", "WORKDIR /w\nCOPY d rel/",
    "COPY f /x\nCOPY g /x", "COPY d /x\nCOPY d/sub /x/sub", "COPY . /all/",
    "ADD f /new", "ADD d /new", "ADD text.tar.gz /new/", "ADD text.tar.gz /new", "ADD plain.tar /new", "ADD plain.tar /new/",
    "ADD a.tar.gz /ex/d/", "ADD a.tar.bz2 /a/b/", "ADD a.tar.xz /link/", "ADD a.tar.gz /link", "ADD a.tar.gz f /ex/d/",
    "ADD --chown=1:2 f /ex/", "COPY a.tar.gz /ex/",
    "COPY f /dangling", "COPY f /dangling/", "COPY f /dangling/x", "COPY d /dangling", "ADD a.tar.gz /dangling/", "ADD f /dangling/a/b/",
    "COPY swap/as-file /x/\nCOPY swap/as-link /x/",
    "COPY swap/as-link /x/\nCOPY swap/as-file /x/", "COPY swap/as-link /x/\nCOPY swap/as-link /x/", "COPY f /x/\u00e9\nCOPY d /x/\u00e9s/",
    "COPY swap/as-link /x/\nCOPY f /x/n/", "COPY swap/as-dir /x/\nCOPY swap/as-dir/n/ /x/n",
    "COPY f d/* /mixed/", "COPY d/one d/sub /mixed/", "COPY . .", "WORKDIR /link\nCOPY f .", "WORKDIR /link/below\nCOPY d .",
    "ADD a.tar.gz plain.tar /x/", "ADD [\"a.tar.gz\", \"/x y/\"]", "ADD d/../a.tar.gz /x", "ADD text.tar.gz f /ex/", "ADD *.tar /x/",
    "COPY --from=base /ex/ /link/", "COPY --from=base /real/../ex/one /x", "COPY --from=busybox /etc/passwd /x/",
    "ADD a.tar.gz /x/\nADD a.tar.gz /x/", "COPY --from=base /ex /copy", "COPY --from=base /link /copy", "COPY --from=base ex/one /copy",
    "COPY --from=base /e* /copy/", "COPY --from=base --chown=5 /ex /copy", "COPY --from=0 /to-file /copy/",
]  # fmt: skip

REFUSED = [
    "COPY absent /x", "COPY f absent /x/", "COPY d /file", "COPY f /file/", "COPY f /file/x", "COPY d/one /ex\nCOPY d /ex/one",
    "COPY --from=base /absent /x", "COPY --from=absent.invalid/x /f /", "COPY f",
    "COPY swap/as-file /x/\nCOPY swap/as-dir /x/", "COPY swap/as-dir /x/\nCOPY swap/as-file /x/", "COPY f* absent* f.absent /x/", "COPY --from=base /ex/absent /x",
    "ADD absent.tar /x", "COPY --bogus f /x", "COPY --from=1 /f /",
]  # fmt: skip


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_context(tmp_path_factory.mktemp("copies") / "context", TREE)
    archive = _archive()
    for name, packed in (
        ("plain.tar", archive), ("a.tar.gz", gzip.compress(archive)), ("a.tar.bz2", bz2.compress(archive)),
        ("a.tar.xz", lzma.compress(archive)),
    ):  # fmt: skip
        (directory / name).write_bytes(packed)
    return directory


def dockerfile(tmp_path: Path, lines: str) -> Path:
    """In a directory of its own: ``COPY .`` must see the same files with either builder."""
    path = tmp_path / "Dockerfile"
    path.write_text(f"FROM busybox AS base\nRUN {PREPARED}\nFROM base\n{lines}\n")
    return path


@pytest.mark.parametrize("lines", SAME, ids=lambda lines: lines.replace("\n", "; "))
def test_same_tree(lines: str, context: Path, docker: Docker, tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    file = dockerfile(tmp_path, lines)
    theirs = built_by_docker(docker, context, tmp_path / "theirs.tar", "--file", str(file))
    ours = built_by_tierce(tierce_with_busybox, context, tmp_path / "ours.tar", "--file", str(file))
    assert differences(theirs, ours) == []


@pytest.mark.parametrize("lines", REFUSED, ids=lambda lines: lines.replace("\n", "; "))
def test_same_refusal(lines: str, context: Path, docker: Docker, tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    file = dockerfile(tmp_path, lines)
    ours = tierce_with_busybox.attempt("build", "--network=host", "--file", file, context)
    assert docker.exit_code("build", "--network=host", "--file", file, context) == ours.code == 1, str(ours)


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as running:
        running.pages |= {
            "/plain?x=y": Page(b"data\n"),
            "/plain": Page(b"data\n", modified="Tue, 14 Nov 2023 22:13:20 GMT"),
            "/timeless": Page(b"data\n"),
            "/a.tar.gz": Page(gzip.compress(_archive()), modified="Tue, 14 Nov 2023 22:13:20 GMT"),
        }
        yield running


@pytest.mark.parametrize(
    "lines",
    ["ADD URL/plain /new", "ADD URL/plain /new/", "ADD URL/plain /ex", "ADD URL/a.tar.gz /ex/", "ADD URL/plain f /ex/",
     "ADD --chown=1:2 URL/plain /a/b/", "ADD URL/plain?x=y /ex/", "ADD URL/timeless /"],
)  # fmt: skip
def test_same_download(
    lines: str, context: Path, server: Web, docker: Docker, tierce_with_busybox: Tierce, tmp_path: Path
) -> None:
    file = dockerfile(tmp_path, lines.replace("URL", server.url("")))
    theirs = built_by_docker(docker, context, tmp_path / "theirs.tar", "--file", str(file))
    ours = built_by_tierce(tierce_with_busybox, context, tmp_path / "ours.tar", "--file", str(file))
    assert differences(theirs, ours) == []
    times = [
        {path: inode.mtime for path, inode in image.tree.items() if inode.mode == 0o600} for image in (theirs, ours)
    ]
    assert times[0] == times[1]
