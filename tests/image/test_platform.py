from __future__ import annotations

import pytest

from image.errors import InvalidPlatform
from image.platform import Platform, best_match

HERE = Platform("linux", "amd64")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"), ("linux/x86_64", "linux/amd64"), ("arm64", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"), ("linux/arm64/v8", "linux/arm64"), ("linux/arm/7", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"), ("linux/armel", "linux/arm/v6"), ("linux/arm", "linux/arm/v7"),
        ("windows", "windows/amd64"), ("macOS/arm64", "darwin/arm64"), ("linux/i386", "linux/386"),
        ("linux/amd64/v1", "linux/amd64"), ("linux/amd64/v3", "linux/amd64/v3"),
    ],
)  # fmt: skip
def test_users_spellings(text: str, expected: str) -> None:
    assert str(Platform.parse(text, default=HERE)) == expected


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "linux/am d64", "linux/amd64/", "foo"])
def test_malformed_is_refused(text: str) -> None:
    with pytest.raises(InvalidPlatform):
        Platform.parse(text, default=HERE)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/arm64", "windows/amd64"], None),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], 1),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/arm/v7", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64"], 1),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/amd64", ["linux/amd64/v2"], None),
    ],
)
def test_best_match(wanted: str, offered: list[str], chosen: int | None) -> None:
    assert best_match(Platform.parse(wanted), [None, *(Platform.parse(o) for o in offered)]) == (
        None if chosen is None else chosen + 1
    )
