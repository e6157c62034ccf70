"""builder/dockerfile/words.py: quotes, variables, modifiers."""

from __future__ import annotations

import fnmatch
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.words import (
    MAX_DEPTH,
    MAX_SIZE,
    Usage,
    expand,
    expand_heredoc,
    expand_words,
    quoted,
    shell_words,
)
from image.errors import DockerfileError

ENV = {"A": "alpha", "EMPTY": "", "P": "/usr/local/bin/x.tar.gz", "S": "one  two", "SECRET": "a$A'\"", "_1": "u"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        # names
        ("$A", "alpha"), ("${A}", "alpha"), ("x$A/y", "xalpha/y"), ("$A.b", "alpha.b"), ("$_1", "u"), ("$AB", ""),
        ("$1", ""), ("$12x", "x"), ("$@", ""), ("$*|", "|"), ("$$", ""), ("$", "$"), ("a$", "a$"), ("$.", "$."),
        ("$/x", "$/x"), ("$ x", "$ x"), ("${1}", ""), ("${@}", ""), ("$UNSET", ""), ("${UNSET}b", "b"),
        # a value is not expanded again
        ("$SECRET", "a$A'\""), ('"$SECRET"', "a$A'\""),
        # quotes and escapes
        ("'$A'", "$A"), ("'\\'", "\\"), ('"$A"', "alpha"), ("\"'$A'\"", "'alpha'"), ("'\"'", '"'),
        (r"\$A", "$A"), (r"\\$A", r"\alpha"), (r"a\ b", "a b"), (r"\n", "n"), (r"\'", "'"), ("a\\", "a"),
        (r'"\$A"', "$A"), (r'"\""', '"'), (r'"\n"', r"\n"), (r'"\\"', "\\"), ('""', ""), ("a''b", "ab"),
        # set and unset
        ("${A:-d}", "alpha"), ("${EMPTY:-d}", "d"), ("${U:-d}", "d"), ("${A-d}", "alpha"), ("${EMPTY-d}", ""),
        ("${U-d}", "d"), ("${A:+d}", "d"), ("${EMPTY:+d}", ""), ("${U:+d}", ""), ("${A+d}", "d"), ("${EMPTY+d}", "d"),
        ("${U+d}", ""), ("${A:?m}", "alpha"), ("${A?}", "alpha"), ("${EMPTY?m}", ""),
        # the operand is a word itself
        ("${U:-$A}", "alpha"), ("${U:-${V:-${A}}}", "alpha"), ("${U:-a b}", "a b"), ("${U:-'}'}", "}"),
        ('${U:-"$A}"}', "alpha}"), (r"${U:-\}}", "}"), ('"${U:-"x y"}"', "x y"), ("${U:-}", ""),
        # prefixes and suffixes
        ("${P#*/}", "usr/local/bin/x.tar.gz"), ("${P##*/}", "x.tar.gz"), ("${P%.*}", "/usr/local/bin/x.tar"),
        ("${P%%.*}", "/usr/local/bin/x"), ("${P#/usr}", "/local/bin/x.tar.gz"), ("${P#nope}", ENV["P"]),
        ("${P%?gz}", "/usr/local/bin/x.tar"), ("${A#}", "alpha"), ("${A##*}", ""), ("${A%%*}", ""), ("${U#x}", ""),
        ("${A#[a]}", "alpha"), ("${P#$U/usr}", "/local/bin/x.tar.gz"), ("${A:#al}", "pha"),
        # replacing
        ("${P/\\//_}", "_usr/local/bin/x.tar.gz"), ("${P//\\//_}", "_usr_local_bin_x.tar.gz"), ("${A/a/}", "lpha"),
        ("${A//a/$EMPTY}", "lph"), ("${A//a/<$_1>}", "<u>lph<u>"), ("${A/*p/-}", "-ha"), ("${A//?/.}", "....."),
        ("${A//*/x}", "x"), ("${A//z/x}", "alpha"), ("${U//a/b}", ""), ("${A/l*/\\1}", r"a\1"),
    ],
)  # fmt: skip
def test_expansion(word: str, expected: str) -> None:
    assert expand(word, ENV) == expected


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ('"a', "unexpected end of statement while looking for matching double-quote"),
        ('"a\\', "unexpected end of statement while looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${A", "syntax error: missing '}'"),
        ("${A:", "syntax error: missing '}'"),
        ("${A:-x", "syntax error: missing '}'"),
        ("${A/x}", "syntax error: missing '/' in ${}"),
        ("${A/x/y", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${{A}", "syntax error: bad substitution"),
        ("${A:=x}", "unsupported modifier (:=) in substitution"),
        ("${A=x}", "unsupported modifier (=) in substitution"),
        ("${A^^}", "unsupported modifier (^) in substitution"),
        ("${A.b}", "unsupported modifier (.) in substitution"),
        ("${U:?}", "U: is not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("${U:?set $A first}", "U: set alpha first"),
        ("${U?m}", "U: m"),
        ("${A:-${U:?always evaluated}}", "U: always evaluated"),
        (r"${A#\a}", r"invalid pattern (\a) in substitution: invalid escape '\a'"),
    ],
)
def test_errors_are_buildkits(word: str, problem: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        expand(word, ENV)
    assert str(caught.value) == f"failed to process {quoted(word)}: {problem}"


@pytest.mark.parametrize(
    ("word", "expected"),
    [("`$A", "$A"), ("\\$A", "\\alpha"), ("`\\", "\\"), ('"`$A"', "$A"), ('"\\$A"', "\\alpha"), ("C:\\$A`n", "C:\\alphan")],
)  # fmt: skip
def test_backtick_as_escape(word: str, expected: str) -> None:
    assert expand(word, ENV, "`") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", ["a", "b"]),
        ("  a\t b \n", ["a", "b"]),
        ("$S", ["one", "two"]),
        ("x$S/y", ["xone", "two/y"]),
        ('"$S" z', ["one  two", "z"]),
        ("'a b'c", ["a bc"]),
        (r"a\ b", ["a b"]),
        ("$U $EMPTY ''", []),
        ("${U:-a b}", ["a", "b"]),
        ("80 $U 443/tcp", ["80", "443/tcp"]),
    ],
)
def test_words_split_outside_quotes(text: str, expected: list[str]) -> None:
    assert expand_words(text, ENV) == expected


def test_usage_tells_what_was_looked_up() -> None:
    usage = Usage()
    expand("$A ${U:-$V} ${A:-$W} '$quoted' ${P##$X}", ENV, usage=usage)
    assert usage.used == {"A", "P"}
    assert usage.unset == {"U", "V", "W", "X"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("\"quotes\" 'stay'\n", "\"quotes\" 'stay'\n"),
        ("\\\n", "\n"),
        ("\\\\\n", "\\\n"),
        ("\\$A\n", "$A\n"),
        ("$A ${U:-'d'}\n", "alpha 'd'\n"),
        ("`$A`", "`alpha`"),
    ],
)
def test_heredoc_bodies(body: str, expected: str) -> None:
    assert expand_heredoc(body, ENV) == expected


def test_shell_words_keep_what_was_written() -> None:
    text = r"""a "b c" 'd' $X ${Y:-z} e\ f"""
    assert shell_words(text, keep_quotes=True, keep_escapes=True) == ["a", '"b c"', "'d'", "$X", "${Y:-z}", r"e\ f"]
    assert shell_words(text, keep_quotes=False, keep_escapes=False) == ["a", "b c", "d", "$X", "${Y:-z}", "e f"]


def test_nesting_has_a_limit() -> None:
    assert expand("${A:-" * MAX_DEPTH + "}" * MAX_DEPTH, {}) == ""
    with pytest.raises(DockerfileError, match="nest deeper than"):
        expand("${A:-" * 20000 + "}" * 20000, {})


def test_the_result_has_a_limit() -> None:
    with pytest.raises(DockerfileError, match="longer than"):
        expand("$A$A$A", {"A": "x" * (MAX_SIZE // 2)})
    with pytest.raises(DockerfileError, match="longer than"):
        expand("${A//x/" + "y" * 1000 + "}", {"A": "x" * (MAX_SIZE // 100)})


def test_many_stars_do_not_take_exponential_time() -> None:
    value = "a" * 5000
    assert expand("${A#" + "*a" * 40 + "*b}", {"A": value}) == value
    assert expand("${A%%" + "*a" * 40 + "*b}", {"A": value}) == value


PLAIN = st.text(string.ascii_letters + string.digits + "_./:=-+ é", max_size=20)
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True)
ENVIRONMENTS = st.dictionaries(NAMES, st.text(max_size=12), max_size=4)
SPECIAL = st.text("aA$\\`\"'{}:-+?#%/*= ", max_size=30)


@given(st.text(st.characters(exclude_characters="'", exclude_categories=["Cs"])), ENVIRONMENTS)
def test_single_quotes_are_literal(text: str, env: dict[str, str]) -> None:
    assert expand(f"'{text}'", env) == text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_escaping_every_character_is_literal(text: str) -> None:
    assert expand("".join(f"\\{char}" for char in text), {}) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_escaping_in_double_quotes_round_trips(text: str) -> None:
    escaped = re.sub(r'(["$\\])', r"\\\1", text)
    assert expand(f'"{escaped}"', {}) == text


@given(NAMES, st.text(max_size=12), PLAIN)
def test_braces_and_defaults_agree_with_the_environment(name: str, value: str, default: str) -> None:
    env = {name: value}
    assert expand(f"${{{name}}}", env) == expand(f"${name}", env) == value
    assert expand(f"${{{name}:-{default}}}", env) == (value or default)
    assert expand(f"${{{name}-{default}}}", {}) == default
    assert expand(f"${{{name}:+{default}}}", env) == (default if value else "")


GLOB = st.lists(st.sampled_from(["*", "?", "a", "b", ".", "x"]), max_size=6).map("".join)
VALUE = st.text("ab.x", max_size=10)


@given(GLOB, VALUE)
def test_prefixes_and_suffixes_are_what_fnmatch_says(pattern: str, value: str) -> None:
    """The shortest and longest matching part, found by trying each."""
    env = {"V": value}
    heads = [end for end in range(len(value) + 1) if fnmatch.fnmatchcase(value[:end], pattern)]
    tails = [start for start in range(len(value) + 1) if fnmatch.fnmatchcase(value[start:], pattern)]
    assert expand(f"${{V#{pattern}}}", env) == (value[heads[0] :] if heads else value)
    assert expand(f"${{V##{pattern}}}", env) == (value[heads[-1] :] if heads else value)
    assert expand(f"${{V%{pattern}}}", env) == (value[: tails[-1]] if tails else value)
    assert expand(f"${{V%%{pattern}}}", env) == (value[: tails[0]] if tails else value)


@given(SPECIAL, ENVIRONMENTS, st.sampled_from("\\`"))
def test_no_word_gives_anything_but_text_or_a_dockerfile_error(word: str, env: dict[str, str], escape: str) -> None:
    try:
        assert isinstance(expand(word, env, escape), str)
        assert all(expand_words(word, env, escape))
        expand_heredoc(word, env)
    except DockerfileError:
        return
