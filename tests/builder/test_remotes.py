"""Words that name something on a network, and those that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.remotes import GitSource, UrlSource, parse_remote, shown
from image.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b", None),
        ("./x.git", None),
        ("a:b", None),
        ("ftp://host/x", None),
        ("github.com/user/app", None),
        ("https://host/a/b.txt", UrlSource("https://host/a/b.txt", "b.txt")),
        ("HTTPS://host/b", UrlSource("HTTPS://host/b", "b")),
        ("http://host/x.git/file", UrlSource("http://host/x.git/file", "file")),
        ("http://host/x?y=z.git", UrlSource("http://host/x?y=z.git", "x")),
        ("https://host/x.git", GitSource("https://host/x.git")),
        ("https://host/x.git#v1", GitSource("https://host/x.git", "v1")),
        ("https://host/x.git#v1:a/../b", GitSource("https://host/x.git", "v1", "b")),
        ("https://host/x.git#:../../etc", GitSource("https://host/x.git", "", "etc")),
        ("git://host/x#main", GitSource("git://host/x", "main")),
        ("ssh://git@host:22/x", GitSource("ssh://git@host:22/x")),
        ("git@host:user/x.git#r:s", GitSource("git@host:user/x.git", "r", "s")),
        ("git@host:x?keep-git-dir", GitSource("git@host:x", keep_git_dir=True)),
        ("https://h/x.git?tag=1&submodules=0", GitSource("https://h/x.git", "refs/tags/1", submodules=False)),
        ("https://h/x.git?branch=b&mtime=commit", GitSource("https://h/x.git", "refs/heads/b", commit_times=True)),
    ],
)
def test_what_a_source_names(text: str, expected: UrlSource | GitSource | None) -> None:
    assert parse_remote(text) == expected


@pytest.mark.parametrize("text", ["github.com/user/app", "github.com/user/app.git"])
def test_a_context_has_a_short_form(text: str) -> None:
    assert parse_remote(f"{text}#main", context=True) == GitSource("https://github.com/user/app.git", "main")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h", "__unnamed__"), ("https://h/", "__unnamed__"), ("https://h/a/", "__unnamed__"),
        ("https://h/..", "__unnamed__"), ("https://h/%2e%2e", "__unnamed__"), ("https://h/a%2fb", "b"),
        ("https://h/%00", "__unnamed__"), ("https://h/a%20b", "a b"), ("https://h/" + "x" * 300, "__unnamed__"),
    ],
)  # fmt: skip
def test_a_name_stays_in_its_directory(url: str, name: str) -> None:
    assert parse_remote(url) == UrlSource(url, name)


def test_secrets_are_not_shown() -> None:
    assert shown("https://user:secret@host/x?sig=secret#f") == "https://host/x#f"


@given(st.text(), st.booleans())
def test_any_word_is_read_or_refused(text: str, context: bool) -> None:
    for prefix in ("", "https://", "git@h:", "ssh://h/", "https://h/x.git?", "https://h/x.git#"):
        try:
            found = parse_remote(prefix + text, context=context)
        except InvalidInput:
            continue
        if isinstance(found, UrlSource):
            assert found.name not in {"", ".", ".."}
            assert not set(found.name) & set("/\0")
        elif found is not None:
            words = (found.remote, found.ref, found.checksum)
            assert not any(word.startswith("-") or "\0" in word or "\n" in word for word in words)
            assert ".." not in found.subdir.split("/")
