"""builder/dockerfile/ignore.py and glob.py: what an ignore file hides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.glob import clean, has_wildcard, segment, unescaped
from builder.dockerfile.ignore import MAX_SIZE, NOTHING, IgnoreRules, ignore_file_names
from image.errors import InvalidInput


def excluded(patterns: str, path: str) -> bool:
    return IgnoreRules.parse(patterns.encode(), ".dockerignore").excludes(path)


@pytest.mark.parametrize(
    ("patterns", "hidden", "shown"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b", "b/a", "ab", "a.txt"]),
        ("/a", ["a", "a/b"], ["b/a"]),
        ("a/", ["a", "a/b"], ["b"]),
        ("./a//b/../c", ["a/c", "a/c/d"], ["a/b", "a"]),
        ("*", ["a", "a/b", ".x"], []),
        ("*.md", ["x.md", ".md", "x.md/y"], ["d/x.md"]),
        ("*/*.md", ["d/x.md"], ["x.md", "d/e/x.md"]),
        ("?", ["a", "é", "a/b"], ["ab"]),
        ("**", ["a", "a/b/c"], []),
        ("**/*.md", ["x.md", "d/x.md", "d/e/x.md"], ["x.mdx"]),
        ("**/a", ["a", "d/a", "d/a/x"], ["ba", "d/ba"]),
        ("**a", ["a", "ba", "d/ba"], ["ab"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "a/b"]),
        ("a**/z", ["a/z", "ab/c/z"], ["b/z"]),
        ("a**", ["a", "ab", "ab/c"], ["ba"]),
        ("a/**/b/**/c", ["a/b/c", "a/x/b/c", "a/b/x/y/c", "a/b/b/c"], ["a/c", "b/c", "a/b"]),
        ("**/a*b*c/**", ["abc/x", "z/a1b2c/x"], ["abc", "acb/x"]),
        ("**/**/a", ["a", "x/a", "x/y/a"], ["b"]),
        ("a*b*b", ["abb", "aXbYb", "abbb"], ["ab", "abx"]),
        ("[a-c]x", ["ax", "cx"], ["dx"]),
        ("[^a-c]x", ["dx", "^x"], ["ax", "/x"]),
        ("[!a]x", ["!x", "ax"], ["bx"]),
        (r"\*x", ["*x"], ["ax"]),
        (r"a\?b", ["a?b"], ["axb"]),
        (r"\!a", ["!a"], ["a"]),
        ("a.b+c(d)|e{f}$", ["a.b+c(d)|e{f}$"], ["axb+c(d)|e{f}$", "e{f}$"]),
        ("  a  ", ["a"], []),
        ("#a\n#\nb", ["b"], ["a", "#a"]),
        (" #a", ["#a"], ["a"]),
        ("a\r\nb\r\n", ["a", "b"], ["a\r"]),
        ("\n\n", [], ["a"]),
        (".", [], ["a", "a/b"]),
        ("../a", [], ["a"]),
        ("a\n!a", [], ["a", "a/b"]),
        ("!a\na", ["a", "a/b"], []),
        ("a\n!a/b", ["a", "a/c"], ["a/b", "a/b/c"]),
        ("a\n!a/b\na/b/c", ["a", "a/b/c"], ["a/b", "a/b/d"]),
        ("a\n!a/b\na", ["a/b"], []),
        ("*\n!*.go\n!go.mod", ["x.c", "d", "d/x.go"], ["x.go", "go.mod"]),
        ("**\n!**/*.go", ["x.c", "d/x.c"], ["x.go", "d/x.go"]),
        ("*\n!d/", ["a"], ["d", "d/x/y"]),
        ("! a\n", [], ["a"]),
        ("a\n!  /a/b ", ["a/c"], ["a/b"]),
        ("café", ["café"], ["cafe"]),
    ],
)
def test_patterns(patterns: str, hidden: list[str], shown: list[str]) -> None:
    rules = IgnoreRules.parse(patterns.encode(), ".dockerignore")
    assert [path for path in hidden if not rules.excludes(path)] == []
    assert [path for path in shown if rules.excludes(path)] == []


@pytest.mark.parametrize(
    ("patterns", "problem"),
    [
        ("!", 'illegal exclusion pattern: "!"'),
        ("a\n!  ", 'illegal exclusion pattern: "!"'),
        ("[", "syntax error in pattern"),
        ("[]", "syntax error in pattern"),
        ("[]a]", "syntax error in pattern"),
        ("[a-]", "syntax error in pattern"),
        ("a\\", "syntax error in pattern"),
    ],
)
def test_bad_patterns_name_the_file(patterns: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=r"error parsing x\.dockerignore: ") as caught:
        IgnoreRules.parse(patterns.encode(), "x.dockerignore")
    assert problem in str(caught.value)


@pytest.mark.parametrize("pattern", ["**/a/" * 40 + "b", "*a" * 60 + "*b", "**/*a*a*a*a*a*b/" * 10, "**/" * 200 + "b"])
def test_no_pattern_takes_exponential_time(pattern: str) -> None:
    rules = IgnoreRules.of([pattern])
    assert not rules.excludes("/".join(["a" * 200] * 20))
    assert not rules.excludes("/".join(["a"] * 200))


def test_stars_beside_a_double_star_are_limited() -> None:
    with pytest.raises(InvalidInput, match="more than 8 stars"):
        IgnoreRules.of(["a**b*c*d*e*f*g*h*i"])


def test_a_byte_order_mark_is_not_part_of_the_first_pattern() -> None:
    assert IgnoreRules.parse(b"\xef\xbb\xbfa", "f").excludes("a")


def test_names_that_are_not_utf8() -> None:
    assert IgnoreRules.parse(b"\xff*", "f").excludes("\udcffx")


def test_an_ignore_file_has_a_limit() -> None:
    with pytest.raises(InvalidInput, match="larger than"):
        IgnoreRules.parse(b"a" * (MAX_SIZE + 1), "f")


def test_no_rules_exclude_nothing() -> None:
    assert not NOTHING
    assert not NOTHING.excludes("a")
    assert IgnoreRules.of(["a"])


@pytest.mark.parametrize(
    ("patterns", "directory", "expected"),
    [
        ("a\n!a/b", "a", True),
        ("a\n!a/b", "c", False),
        ("a\n!a/b/c", "a/b", True),
        ("a\n!a/b/c", "a/x", False),
        ("*\n!**/x", "any/where", True),
        ("*\n!*/x", "d", True),
        ("*\n!*/x", "d/e", False),
        ("*\n!*.go", "d", False),
        ("*\n!d", "d", False),
        ("*", "d", False),
    ],
)
def test_where_an_exception_could_match_below(patterns: str, directory: str, expected: bool) -> None:
    assert IgnoreRules.parse(patterns.encode(), "f").may_include_below(directory) is expected


def test_where_ignore_files_are_looked_for() -> None:
    assert ignore_file_names("x/D") == ("x/D.dockerignore", "x/D.containerignore", ".containerignore", ".dockerignore")


SEGMENT = st.text("ab*?", min_size=1, max_size=3)
PATTERN = (
    st.lists(st.one_of(SEGMENT, st.just("**")), min_size=1, max_size=4)
    .map("/".join)
    .filter(lambda pattern: pattern.count("*") <= 8)
)
PATH = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=5).map("/".join)


@given(st.lists(st.tuples(st.booleans(), PATTERN), max_size=5), PATH)
def test_rules_agree_with_reading_them_one_by_one(lines: list[tuple[bool, str]], path: str) -> None:
    """The last pattern that matches the path or a parent decides; ``**`` inside a segment is left out."""
    lines = [(exception, pattern) for exception, pattern in lines if _separate(pattern)]
    rules = IgnoreRules.of([("!" if exception else "") + pattern for exception, pattern in lines])
    names = path.split("/")
    verdict = False
    for exception, pattern in lines:
        parts = pattern.split("/")
        if any(_matches(parts, names[:length]) for length in range(1, len(names) + 1)):
            verdict = not exception
    assert rules.excludes(path) is verdict


@given(st.lists(st.tuples(st.booleans(), PATTERN), max_size=5), PATH)
def test_nothing_is_re_included_where_it_was_said_not_to_be(lines: list[tuple[bool, str]], path: str) -> None:
    rules = IgnoreRules.of([("!" if exception else "") + pattern for exception, pattern in lines])
    parent = path.rpartition("/")[0]
    if parent and rules.excludes(parent) and not rules.may_include_below(parent):
        assert rules.excludes(path)


def _separate(pattern: str) -> bool:
    return all("**" not in part or part == "**" for part in pattern.split("/"))


def _matches(parts: list[str], names: list[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        if len(parts) == 1:
            return bool(names)
        return any(_matches(parts[1:], names[skip:]) for skip in range(len(names) + 1))
    return bool(names) and segment(parts[0]).match(names[0]) is not None and _matches(parts[1:], names[1:])


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a//b/./c/..", "a/b"), ("//a", "/a"), ("", "."), ("../a", "../a"), ("/..", "/"), ("a/", "a")],
)
def test_clean(path: str, expected: str) -> None:
    assert clean(path) == expected


@pytest.mark.parametrize(
    ("pattern", "wild", "plain"), [("a*", True, ""), (r"a\*", False, "a*"), (r"\\*", True, ""), ("[[]a", True, "")]
)
def test_wildcards_and_escapes(pattern: str, wild: bool, plain: str) -> None:
    assert has_wildcard(pattern) is wild
    if not wild:
        assert unescaped(pattern) == plain
