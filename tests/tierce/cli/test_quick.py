"""The way without click reads what click reads, or leaves it to click."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.cli import quick
from tierce.cli.clicked import ClickCommand
from tierce.cli.command import Settings
from tierce.cli.commands import COMMANDS
from tierce.cli.declare import Command, Entry, Group, Option, WrongUsage, argument, command, option


def all_entries(group: Group = COMMANDS) -> Iterator[Entry]:
    for entry in group.entries.values():
        if isinstance(entry, Entry):
            yield entry
        else:
            yield from all_entries(entry)


EVERY = sorted({entry.load() for entry in all_entries()}, key=lambda found: found.function.__module__ + found.name)


def by_click(declared: Command, words: list[str]) -> dict[str, Any] | str:
    """What click gives the command, or the kind of its complaint."""
    try:
        return ClickCommand(declared).make_context(declared.name, list(words), obj=Settings(Path("/"), {})).params
    except (click.ClickException, click.exceptions.Exit, WrongUsage) as error:
        return type(error).__name__


def by_quick(declared: Command, words: list[str]) -> dict[str, Any] | None:
    entry = _Loaded(declared)
    read = quick.read(Group("tierce", sections={"": {"it": entry}}), ["it", *words])
    return None if read is None else read[3]


class _Loaded(Entry):
    """An entry of a command that is here already."""

    declared: Command

    __slots__ = ("declared",)

    def __init__(self, declared: Command) -> None:
        super().__init__("", "", "")
        object.__setattr__(self, "declared", declared)

    def load(self) -> Command:
        return self.declared


def _flags(declared: Command) -> list[str]:
    options = [one for one in declared.parameters if isinstance(one, Option)]
    return [name for one in options for name in (*one.names, *one.opposites)]


VALUES = ("x", "1", "0", "-1", "a=b", "true", "false", "auto", "never", "", "-", "--", "1.5", "--rm", "-it")


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[Command, list[str]]:
    """A command, and words that are often right: its flags in all spellings, and words of all kinds."""
    declared = draw(st.sampled_from(EVERY))
    flags = _flags(declared) or ["--none"]
    letters = [flag[1] for flag in flags if not flag.startswith("--")] or ["z"]
    value = st.sampled_from(VALUES)
    flag = st.sampled_from(flags)
    word = st.one_of(
        value, flag, flag, st.builds("{}={}".format, flag, value), st.builds("{}{}".format, flag, value),
        st.builds("-{}{}".format, st.text(letters, min_size=1, max_size=3), value),
    )  # fmt: skip
    return declared, draw(st.lists(word, max_size=5))


@given(command_lines())
def test_what_it_reads_it_reads_as_click_does(line: tuple[Command, list[str]]) -> None:
    declared, words = line
    read = by_quick(declared, words)
    assert read is None or read == by_click(declared, words)


@pytest.mark.parametrize(
    "line",
    [
        "run --rm -it -v /a:/b --network=none -e A=1 --memory 1g --cpus 1.5 --pids-limit=5 busybox sh -c 'exit'",
        "run -d --restart always --name=x --pull never -p 80:80/udp busybox --help",
        "run --sig-proxy=false --tls-verify=true --no-tls-verify --init=1 busybox",
        "exec -it web sh",
        "container exec -u nobody web ls -l /",
        "ps -aq --filter status=exited --format {{.ID}} --no-trunc",
        "stop -t 3 web",
        "build -t a:b --build-arg A=1 -f - --progress=plain .",
        "build",
        "images",
        "image rm -f one two",
        "--root /x --debug pull -q busybox",
        "logs -f --tail 3 web",
        "push --tls-verify=false localhost:5000/app",
    ],
)
def test_usual_command_lines_need_no_click(line: str) -> None:
    assert quick.read(COMMANDS, line.split()) is not None


@pytest.mark.parametrize(
    "line",
    [
        "", "--help", "--version", "nonsense", "run", "run --help", "run --bogus x", "run -e", "run --cpus=much x",
        "run --rm=maybe x", "run --pull=sometimes x", "run --disable-content-trust x", "image", "image --help",
        "image nonsense", "help run", "completion bash", "tag one", "tag one two three", "--bogus run x", "ps --all=perhaps",
        "build --nonsense .", "run -z x", "pull --log-format json x", "top web aux",
    ],
)  # fmt: skip
def test_what_is_not_usual_is_left_to_click(line: str) -> None:
    assert quick.read(COMMANDS, line.split()) is None


def test_options_before_the_command() -> None:
    read = quick.read(COMMANDS, ["--root", "/x", "--debug=true", "image", "ls", "-q"])
    assert read is not None
    path, found, before, values = read
    assert (path, found.name, values["quiet"]) == ("tierce image ls", "images", True)
    assert before == {"root": Path("/x"), "registries_conf": None, "debug": True}


@command("sample", short_help="For a test")
@argument("first")
@argument("rest", nargs=-1)
@option("--one/--not-one", default=True)
@option("-n", "--number", type=int, default=3)
@option("--many", "several", multiple=True)
def sample(settings: object, **values: Any) -> None:
    """For a test."""


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("a", {"first": "a", "rest": (), "one": True, "number": 3, "several": ()}),
        ("--not-one a -n4 b --many=x --many y", {"first": "a", "rest": ("b",), "one": False, "number": 4, "several": ("x", "y")}),
        ("-n 4 -n 5 -- a --one", {"first": "a", "rest": ("--one",), "one": True, "number": 5, "several": ()}),
        ("--one=false a", {"first": "a", "rest": (), "one": False, "number": 3, "several": ()}),
        ("-n=4 a", None),
        ("-n four a", None),
        ("a --many", None),
    ],
)  # fmt: skip
def test_spellings(words: str, values: dict[str, Any] | None) -> None:
    assert by_quick(sample, words.split()) == values
