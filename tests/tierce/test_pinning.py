"""tierce/pinning.py: which words of a Dockerfile name images, and what is put in their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.digest import Digest
from image.errors import DockerfileError, ReferenceNotFound, StorageError
from image.reference import Reference
from tierce.pinning import find_images, pin, replace_file, rewrite, unpin

OLD, NEW = f"sha256:{'0' * 64}", f"sha256:{'a' * 64}"


def resolve(reference: Reference) -> Digest:
    if "absent" in reference.path:
        raise ReferenceNotFound(f"image {reference.familiar} not found")
    return Digest(NEW)


def pinned(text: str, *, update: bool = False, ignored: tuple[str, ...] = ()) -> str:
    source = text.encode()
    return rewrite(source, pin(find_images(source, "Dockerfile", ignored=ignored), resolve, update=update)).decode()


def unpinned(text: str) -> str:
    source = text.encode()
    return rewrite(source, unpin(find_images(source, "Dockerfile"))).decode()


@pytest.mark.parametrize(
    "text",
    [
        "FROM busybox<>\n",
        "FROM   busybox:1.36<>   AS  busybox\n",
        "from registry.example:5000/team/app:1<> as x\r\nRUN true\r\n",
        "\ufeffFROM busybox<>\n",
        "FROM --platform=linux/amd64 busybox<> AS a\nFROM a\nFROM scratch\n",
        "FROM \\\n  # busybox\n  --platform=linux/amd64 \\\n  busybox<> \\\n  AS a\n",
        "FROM busybox<>\\\n AS a\n",
        "# escape=`\nFROM `\n busybox<>`\n AS a\n",
        "FROM from<> AS from\n",
        "FROM a<> AS one\nFROM b<>\nCOPY --from=one /x /\nCOPY --from=0 /x /\nCOPY --from=c:2<> --chown=1 /c:2 /\n",
        "FROM a<>\nCOPY --chown=c --from=c<> /x /\n",
        "FROM a<>\nRUN --mount=type=bind,from=tools<>,target=/t --mount=from=x<>,target=/u echo from=x busybox\n",
        "FROM a<>\nRUN --mount=type=cache,target=/c <<EOF\nFROM busybox\n--mount=from=busybox\nEOF\n",
        "FROM a<>\nCOPY <<busybox /x\nFROM busybox\nCOPY --from=busybox / /\nbusybox\n",
        "# syntax=docker/dockerfile:1\n# FROM busybox\nFROM busybox<> # busybox\n".replace(" # busybox\n", "\n"),
        "FROM a<>\nONBUILD COPY --from=b / /\n",
        "ARG V=1\nFROM a:$V AS x\nFROM b<>\n",
        "FROM a<>\n# caf\u00e9 \u65e5\u672c\nFROM b<>",
    ],
)
def test_only_the_names_of_images_change_and_back(text: str) -> None:
    plain, expected = text.replace("<>", ""), text.replace("<>", f"@{NEW}")
    assert pinned(plain) == expected
    assert pinned(expected) == expected
    assert unpinned(expected) == plain
    assert unpinned(plain) == plain


def test_bytes_that_are_not_utf8_stay() -> None:
    source = b"# caf\xe9\nFROM busybox\n# \xff\xfe\n"
    changes = pin(find_images(source, "Dockerfile"), resolve)
    assert rewrite(source, changes) == f"# caf?\nFROM busybox@{NEW}\n# ??\n".encode().replace(
        b"caf?", b"caf\xe9"
    ).replace(b"??", b"\xff\xfe")


def test_a_pinned_name_is_looked_up_again_only_on_demand() -> None:
    text = f"FROM a:1@{OLD}\nFROM b\n"
    assert pinned(text) == f"FROM a:1@{OLD}\nFROM b@{NEW}\n"
    assert pinned(text, update=True) == f"FROM a:1@{NEW}\nFROM b@{NEW}\n"


@pytest.mark.parametrize(
    ("text", "note", "is_pinned"),
    [
        ("ARG A=busybox\nFROM $A", "an ARG is part of its name", False),
        ("ARG V=1\nFROM busybox:${V}", "an ARG is part of its name", False),
        (f"ARG A=busybox@{OLD}\nFROM $A", "an ARG is part of its name", True),
        (f"ARG D\nFROM busybox@{OLD}$D", "an ARG is part of its name", True),
        ("FROM bus\\\nybox", "it is quoted, escaped or split over lines", False),
        ('FROM a@sha256:1', "it is not a valid image name", False),
    ],
)  # fmt: skip
def test_what_is_left_alone(text: str, note: str, is_pinned: bool) -> None:
    [mention] = find_images(text.encode(), "Dockerfile")
    assert (mention.note, mention.pinned) == (note, is_pinned)
    assert pinned(text) == text


def test_a_quoted_flag_is_left_alone() -> None:
    text = 'FROM scratch\nCOPY --from="busybox" / /\n'
    [mention] = find_images(text.encode(), "Dockerfile")
    assert mention.note == "it is quoted, escaped or split over lines"
    assert pinned(text) == text


def test_names_to_ignore() -> None:
    assert pinned("FROM absent\nFROM b\n", ignored=("absent",)) == f"FROM absent\nFROM b@{NEW}\n"


def test_an_image_that_is_not_there_is_shown_at_its_line() -> None:
    with pytest.raises(DockerfileError, match="image absent:latest not found") as caught:
        pinned("FROM a\n\nCOPY --from=absent / /\n")
    assert caught.value.span is not None
    assert caught.value.span.start == 3


def test_a_broken_file_is_refused_with_its_lines() -> None:
    with pytest.raises(DockerfileError, match="unknown instruction: FORM") as caught:
        find_images(b"FORM a\n", "x")
    assert caught.value.source == ("FORM a",)


NAMES = st.sampled_from(["busybox", "a/b:1", "localhost:5000/x", f"pinned@{OLD}", "$A", "scratch", "early"])
LINES = st.one_of(
    st.builds("FROM {}{}{}".format, st.sampled_from(["", "  ", "\\\n\t"]), NAMES, st.sampled_from(["", " AS stage", " "])),
    st.builds("COPY --from={} / /".format, NAMES.filter(lambda name: "$" not in name)),
    st.builds("RUN --mount=type=bind,from={},target=/m x".format, NAMES.filter(lambda name: "$" not in name)),
    st.sampled_from(["# FROM busybox", "", "RUN <<e\nFROM busybox\ne", "ENV A=busybox"]),
)  # fmt: skip


@given(st.lists(LINES, max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_undoing_gives_the_same_bytes(lines: list[str], end: str) -> None:
    plain = "\n".join(["FROM busybox AS early\nFROM scratch", *lines, ""]).replace("\n", end).replace(f"@{OLD}", "")
    done = pinned(plain)
    assert unpinned(done) == plain
    assert done.replace(f"@{NEW}", "") == plain
    assert pinned(done) == done


def test_a_file_is_replaced_through_its_link_and_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "Dockerfile", tmp_path / "Dockerfile"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    replace_file(link, b"new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o7777 == 0o640
    assert [path.name for path in real.parent.iterdir()] == ["Dockerfile"]


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"write .*absent.*: no such file or directory"):
        replace_file(tmp_path / "absent" / "Dockerfile", b"new")
