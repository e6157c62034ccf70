"""Ranges of versions, against what the tools that people come from say."""

from __future__ import annotations

import pytest

from image.errors import InvalidInput
from transfer.sync.semver import Range, Version


def version(text: str) -> Version:
    found = Version.parse(text)
    assert found is not None, text
    return found


def test_precedence_is_that_of_the_specification() -> None:
    words = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.1 1.2.0 2.0.0"
    versions = [version(word) for word in words.split()]
    shuffled = [*versions[1::2], *versions[::2]]
    assert sorted(shuffled) == versions


@pytest.mark.parametrize("text", ["v1.2.3", "1.2.3+build.5", "1.2.3"])
def test_what_a_tag_may_add(text: str) -> None:
    assert version(text) == version("1.2.3")


@pytest.mark.parametrize("text", ["latest", "1.2.3.4", "", "v", "1.2-", "a1.2", "1..2", "-1", "1.2.3_4"])
def test_what_is_no_version(text: str) -> None:
    assert Version.parse(text) is None


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        (">=1.2", "1.2 1.2.0 1.3 99", "1.1.9 1.2.0-rc1 1.3-rc1"),
        (">=1.2.0-0", "1.2.0-rc1 1.2.0 1.3.0-rc1", "1.1"),
        (">1.2", "1.3.0", "1.2.0 1.2.9"),
        (">1.2.3", "1.2.4", "1.2.3"),
        ("<2", "1.9.9 0", "2.0.0"),
        ("<=2", "2.9.9 2.0.0", "3.0.0"),
        ("<=2.1.0", "2.1.0", "2.1.1"),
        ("=1.2", "1.2.0 1.2.9", "1.3.0"),
        ("1.2.3", "1.2.3 v1.2.3", "1.2.4"),
        ("!=1.2.3", "1.2.4 1", "1.2.3"),
        ("!=1.2.x", "1.3 1.1.9", "1.2.0 1.2.7"),
        ("1.2.x", "1.2.0 1.2.9", "1.3 1.1"),
        ("1.x", "1.0 1.99.1", "2.0 0.9"),
        ("*", "0 1.2.3", "1.0.0-rc1"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
        ("~1.2", "1.2.0 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.9", "2.0.0"),
        ("^1.2.3", "1.2.3 1.9.0", "2.0.0 1.2.2 2.0.0-rc1"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0", "0.0.0 0.9.1", "1.0.0"),
        ("1.2 - 1.4", "1.2.0 1.4.0 1.4.9", "1.5.0 1.1"),
        (">=1.2 <2", "1.2 1.9", "2.0 1.1"),
        (">= 1.2, < 2.0.0 || >= 4", "1.3 4.0 17", "2.0 3.9"),
    ],
)  # fmt: skip
def test_ranges(range_: str, inside: str, outside: str) -> None:
    found = Range(range_)
    assert [word for word in inside.split() if version(word) not in found] == []
    assert [word for word in outside.split() if version(word) in found] == []


@pytest.mark.parametrize("text", ["", ">=", "a", ">=1 ||", "1.2.3.4", ">=1.2 latest", "1 2 - 3", "><1"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InvalidInput, match="no range of versions"):
        Range(text)
