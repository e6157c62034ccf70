"""``--parents``, ``--exclude``, ``--chmod``, ``--chown``: what docker 20.10 does not know yet, as tables."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from store.layers import mounted
from store.store import Store
from tests.support.process import command
from tests.tierce.build.sources.conftest import Bench, archive

pytestmark = pytest.mark.root


RULES_TABLE = [
    ("COPY --parents a/b/c.txt /x/", {"x/": "755 0:0", "x/a/": "711 0:0", "x/a/b/": "700 0:0", "x/a/b/c.txt": "644 0:0 c"}),
    ("COPY --parents a/./b/c.txt /x/", {"x/": "755 0:0", "x/b/": "700 0:0", "x/b/c.txt": "644 0:0 c"}),
    ("COPY --parents a/./b /x/", {"x/": "755 0:0", "x/b/": "700 0:0", "x/b/c.txt": "644 0:0 c", "x/b/d.md": "644 0:0 d"}),
    ("COPY --parents **/*.md /", {"a/": "711 0:0", "a/b/": "700 0:0", "a/b/d.md": "644 0:0 d", "top.md": "644 0:0 t"}),
    ("COPY --parents a/./**/*.txt /", {"b/": "700 0:0", "b/c.txt": "644 0:0 c", "e.txt": "644 0:0 e"}),
    ("COPY --parents none/**/x /d/", {}),
    ("COPY --parents a/e.txt top.md /x/", {"x/": "755 0:0", "x/a/": "711 0:0", "x/a/e.txt": "644 0:0 e", "x/top.md": "644 0:0 t"}),
    ("COPY --parents --chown=5 a/e.txt /x/", {"x/": "755 5:5", "x/a/": "711 5:5", "x/a/e.txt": "644 5:5 e"}),
    ("COPY --parents --chmod=700 a/e.txt /x/", {"x/": "700 0:0", "x/a/": "700 0:0", "x/a/e.txt": "700 0:0 e"}),
    ("COPY --exclude=*.md . /x/", {"x/": "755 0:0", "x/a/": "711 0:0", "x/a/b/": "700 0:0", "x/a/b/c.txt": "644 0:0 c", "x/a/b/d.md": "644 0:0 d", "x/a/e.txt": "644 0:0 e"}),
    ("COPY --exclude=**/*.md a /x/", {"x/": "755 0:0", "x/b/": "700 0:0", "x/b/c.txt": "644 0:0 c", "x/e.txt": "644 0:0 e"}),
    ("COPY --exclude=b --exclude=!b/d.md a /x/", {"x/": "755 0:0", "x/b/": "700 0:0", "x/b/d.md": "644 0:0 d", "x/e.txt": "644 0:0 e"}),
    ("COPY --exclude=b a/* /x/", {"x/": "755 0:0", "x/c.txt": "644 0:0 c", "x/d.md": "644 0:0 d", "x/e.txt": "644 0:0 e"}),
    ("COPY --exclude=top.md top.md a/e.txt /x/", {"x/": "755 0:0", "x/e.txt": "644 0:0 e"}),
    ("COPY --exclude=e.txt --parents a /x/", {"x/": "755 0:0", "x/a/": "711 0:0", "x/a/b/": "700 0:0", "x/a/b/c.txt": "644 0:0 c", "x/a/b/d.md": "644 0:0 d"}),
    ("ADD --exclude=b a /x/", {"x/": "755 0:0", "x/e.txt": "644 0:0 e"}),
    ("COPY --chmod=u=rwX,go=rX a /x", {"x/": "755 0:0", "x/b/": "755 0:0", "x/b/c.txt": "644 0:0 c", "x/b/d.md": "644 0:0 d", "x/e.txt": "644 0:0 e"}),
    ("COPY --chmod=a+X top.md /x", {"x": "644 0:0 t"}),
    ("COPY --chmod=g=u top.md /x", {"x": "664 0:0 t"}),
    ("COPY --chmod=u+s,o-r top.md /x", {"x": "4640 0:0 t"}),
    ("COPY --chmod=4750 top.md /x", {"x": "4750 0:0 t"}),
    ("COPY --chmod=0 top.md /x", {"x": "0 0:0 t"}),
    ("COPY --chmod=750 a/e.txt /p/q/", {"p/": "750 0:0", "p/q/": "750 0:0", "p/q/e.txt": "750 0:0 e"}),
    ("COPY --chown=1 top.md /x", {"x": "644 1:1 t"}),
    ("COPY --chown=1:2 top.md /x", {"x": "644 1:2 t"}),
    ("COPY --chown=:2 top.md /x", {"x": "644 0:2 t"}),
    ("COPY etc /etc\nCOPY --chown=who top.md /x", {"x": "644 5:6 t"}),
    ("COPY etc /etc\nCOPY --chown=who:club top.md /x", {"x": "644 5:7 t"}),
    ("COPY etc /etc\nCOPY --chown=who:1 top.md /x", {"x": "644 5:1 t"}),
    ("COPY etc /etc\nCOPY --chown=9:club top.md /x", {"x": "644 9:7 t"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"), RULES_TABLE, ids=[line.partition("\n")[2] or line for line, _ in RULES_TABLE]
)
def test_parents_excludes_modes_and_owners(bench: Bench, line: str, expected: dict[str, str]) -> None:
    bench.write(a__e="e", **{"a__b__c.txt": "c", "a__b__d.md": "d", "a__e.txt": "e", "top.md": "t"})
    (bench.context / "a" / "e").unlink()
    bench.write(etc__passwd="who:x:5:6::/:/bin/sh\n", etc__group="club:x:7:\n")
    for name, mode in (("a", 0o711), ("a/b", 0o700)):
        (bench.context / name).chmod(mode)
    bench.write(**{".dockerignore": ".dockerignore\n" + ("" if "etc" in line else "etc\n")})
    listing = bench.listing(bench.build(f"FROM scratch\n{line}"))
    assert {path: shown for path, shown in listing.items() if not path.startswith("etc/")} == expected


def test_links_of_a_stage_lead_nowhere_else(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("outside")
    links = bench.context / "links"
    links.mkdir()
    for name, target in {"up": "../" * 20 + str(tmp_path / "outside"), "abs": str(tmp_path / "outside")}.items():
        (links / name).symlink_to(target)
    for name in ("up", "abs"):
        assert "not found" in str(
            bench.refused(f"FROM scratch AS a\nCOPY links /\nFROM scratch\nCOPY --from=a /{name} /x")
        )


def test_an_archive_keeps_its_modes_and_files(bench: Bench) -> None:
    """--chown is for what comes out of it, --chmod and --exclude are not; the directory above gets the mode."""
    (bench.context / "a.tgz").write_bytes(archive({"f": "x", "g": "y"}))
    line = "ADD --chown=1:2 --chmod=0711 --exclude=f a.tgz /d/"
    assert bench.listing(bench.build(f"FROM scratch\n{line}")) == {
        "d/": "711 1:2", "d/f": "640 1:2 x", "d/g": "640 1:2 y",
    }  # fmt: skip


@pytest.mark.parametrize(
    "lines",
    [
        "COPY d /",
        "FROM0COPY d /\nFROM scratch\nCOPY --from=0 / /",
        "ADD d.tar /",
        "COPY --link d /",
        "COPY --parents ./d/./ /",
    ],
)
def test_what_else_a_file_has_is_kept(bench: Bench, lines: str) -> None:
    """Several names, extended attributes, setuid: from the context, a stage, an archive."""
    bench.write(d__one="1")
    one = bench.context / "d" / "one"
    os.link(one, one.with_name("two"))
    os.setxattr(one, "user.note", b"kept")
    one.chmod(0o6755)
    with tarfile.open(bench.context / "d.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("one", "two"):
            entry = tar.gettarinfo(bench.context / "d" / name, name)
            entry.pax_headers = {"SCHILY.xattr.user.note": "kept"}
            entry.uid = entry.gid = 0
            with one.open("rb") as content:
                tar.addfile(entry, content)
    built = bench.build("FROM scratch\n" + lines.removeprefix("FROM0"))
    with Store.open(bench.root) as store:
        chain = store.facts(built.manifest).layers[-1].chain_id
        with mounted(store.layers.overlay(store.layers.directories_of(chain))) as fd:
            found = os.stat("one", dir_fd=fd)
            assert found.st_mode == 0o106755
            assert (found.st_nlink, os.stat("two", dir_fd=fd).st_ino) == (2, found.st_ino)
            assert os.getxattr(f"/proc/self/fd/{fd}/one", "user.note") == b"kept"


@pytest.mark.parametrize("name", ["../../../../tmp/escaped-9a", "/../escaped-9a", "l/../../escaped-9a"])
def test_an_archive_that_reaches_outside_is_refused(bench: Bench, name: str) -> None:
    (bench.context / "a.tgz").write_bytes(archive({"f": "x", name: "bad"}))
    assert "escaped-9a" in str(bench.refused("FROM scratch\nADD a.tgz /d/"))
    assert not Path("/tmp/escaped-9a").exists()


def test_an_archive_that_is_a_bomb_leaves_the_disk_as_it_was(bench: Bench, tmp_path: Path) -> None:
    """Four gigabytes in a few megabytes, and a store with room for little of it."""
    entry = tarfile.TarInfo("big")
    entry.size = 4 << 30
    (bench.context / "bomb.tgz").write_bytes(gzip.compress(entry.tobuf()) + gzip.compress(bytes(1 << 24), 9) * 256)
    small = tmp_path / "small"
    small.mkdir()
    command(["mount", "-t", "tmpfs", "-o", "size=16m", "none", small])
    try:
        bench.root = small / "root"
        assert "no space left on device" in str(bench.refused("FROM scratch\nADD bomb.tgz /"))
        assert bench.listing(bench.build("FROM scratch\nCOPY <<A /\n1\nA")) == {"A": "644 0:0 1\n"}
    finally:
        command(["umount", small])


@pytest.mark.parametrize("flag", ["", "--link"])
def test_a_file_that_would_delete_another_is_refused(bench: Bench, flag: str) -> None:
    """Overlayfs takes a character device 0:0 for the deletion of what is below."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("passwd")
        entry.type = tarfile.CHRTYPE
        tar.addfile(entry)
    (bench.context / "a.tar").write_bytes(out.getvalue())
    bench.write(passwd="kept")
    error = bench.refused(f"FROM scratch\nCOPY passwd /etc/\nADD {flag} a.tar /etc/")
    assert "character device 0:0" in str(error)
