"""The json-file log: what is written can be read, by us and by whoever knows docker's format."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.containers.log import LogWriter, timestamp
from runner.containers.log_reader import LogReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.containers.log_reader import Line

OUT, ERR = b"stdout", b"stderr"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x-json.log"


def lines(path: Path, **how: object) -> list[Line]:
    return [line for block in LogReader(path).read(**how) for line in block]  # type: ignore[arg-type]


def texts(path: Path, **how: object) -> list[str]:
    return [line["log"] for line in lines(path, **how)]


def ticking() -> Iterator[int]:
    yield from range(10**18, 10**19, 10**9)


@pytest.mark.parametrize(
    "data",
    [b"plain\n", b'"\\\n', b'ends in \\n\\\n", "stream"\n', b"tab\tand\r\n", bytes(range(128)) + b"\n",
     "naïve € \U0001f600\n".encode(), b"\xff\xc3\n", b"\x1b[31mred\x1b[0m\n", b"\n\n\n", b"no end"],
)  # fmt: skip
def test_every_byte_comes_back(path: Path, data: bytes) -> None:
    writer = LogWriter(path)
    writer.write(OUT, data)
    writer.close()
    text = data.decode("utf-8", "replace")
    assert "".join(texts(path)) == text
    assert "".join(json.loads(line)["log"] for line in path.read_bytes().splitlines()) == text


def test_random_bytes_in_random_pieces_come_back(path: Path) -> None:
    chance = random.Random(7)
    writer, wrote = LogWriter(path), b""
    for _ in range(200):
        piece = bytes(chance.choice(b'ab"\\\n\t\x00\x1b') for _ in range(chance.randrange(900)))
        writer.write(OUT, piece)
        wrote += piece
    writer.close()
    assert "".join(texts(path)) == wrote.decode()


@pytest.mark.parametrize("max_size", [1, 150, 1000])
@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_a_file_is_rotated_by_the_line_that_reaches_its_limit(path: Path, max_size: int, at_once: int) -> None:
    writer = LogWriter(path, max_size=max_size, max_file=99)
    wrote = [f"line {number}\n" for number in range(60)]
    for at in range(0, len(wrote), at_once):
        writer.write(OUT, "".join(wrote[at : at + at_once]).encode())
    writer.close()
    assert texts(path) == wrote
    for file in path.parent.iterdir():
        content = file.read_bytes().splitlines(keepends=True)
        assert sum(map(len, content[:-1])) < max_size
        assert file == path or sum(map(len, content)) >= max_size


@pytest.mark.parametrize("tail", [0, 1, 2, 3, 50, 99, 100, 101, 10**6])
@pytest.mark.parametrize("max_size", [0, 700])
def test_the_last_lines(path: Path, tail: int, max_size: int) -> None:
    writer = LogWriter(path, max_size=max_size, max_file=90)
    wrote = [f"{number} {'x' * (number * 37 % 211)}\n" for number in range(100)]
    for line in wrote:
        writer.write(OUT, line.encode())
    writer.close()
    assert texts(path, tail=tail) == (wrote[-tail:] if tail else [])


def test_pieces_of_a_long_line_count_as_one(path: Path) -> None:
    writer = LogWriter(path)
    long = "\\n" * 50_000
    writer.write(OUT, f"first\n{long}\nlast\nno end".encode())
    writer.close()
    assert "".join(texts(path, tail=2)) == "last\nno end"
    assert "".join(texts(path, tail=3)) == f"{long}\nlast\nno end"
    assert len(lines(path)) > 6


def test_a_line_that_a_full_disk_cut_costs_no_other(path: Path) -> None:
    writer = LogWriter(path)
    writer.write(OUT, b"one\ntwo\n")
    with path.open("ab") as file:
        file.write(b'{"log":"cu\n[]\n{"log":1}\n')
    writer.write(ERR, b"three\n")
    writer.close()
    assert texts(path) == ["one\n", "two\n", "", "", "", "three\n"]
    assert texts(path, tail=1) == ["three\n"]


def test_whole_blocks_from_before_a_time_are_not_shown(path: Path) -> None:
    ticks = ticking()
    writer = LogWriter(path, clock=lambda: next(ticks))
    for number in range(30_000):
        writer.write(OUT, b"%d\n" % number)
    writer.close()
    shown = lines(path, since=timestamp(10**18 + 29_990 * 10**9))
    assert [line["log"] for line in shown][-10:] == [f"{number}\n" for number in range(29_990, 30_000)]
    assert len(shown) < 20_000


def test_streams_and_times(path: Path) -> None:
    writer = LogWriter(path, clock=lambda: 10**18 + 5)
    writer.write(OUT, b"out\n")
    writer.write(ERR, b"err\n")
    writer.close()
    assert [(line["stream"], line["time"]) for line in lines(path)] == [
        ("stdout", "2001-09-09T01:46:40.000000005Z"), ("stderr", "2001-09-09T01:46:40.000000005Z"),
    ]  # fmt: skip


@pytest.mark.parametrize("rotations", [1, 2, 5])
@pytest.mark.parametrize("max_file", [1, 3, 20])
def test_a_follower_sees_what_is_kept_through_rotations(path: Path, rotations: int, max_file: int) -> None:
    """Between two looks of the follower the writer goes on to other files."""
    writer = LogWriter(path, max_size=100, max_file=max_file)
    wrote: list[str] = []

    def say(text: str) -> None:
        wrote.append(text)
        writer.write(OUT, text.encode())

    say("first\n")
    turns = iter(range(4))

    def alive() -> bool:
        turn = next(turns, None)
        if turn is None:
            return False
        for number in range(rotations):
            say(f"turn {turn} file {number} {'x' * 60}\n")
        return True

    seen = texts(path, follow=alive)
    writer.close()
    if rotations < max_file:
        assert seen == wrote
    assert seen[0] == "first\n"
    assert seen[-1] == wrote[-1]
    assert [text for text in wrote if text in seen] == seen


def test_a_follower_waits_for_the_first_line(path: Path) -> None:
    turns = iter(range(3))

    def alive() -> bool:
        turn = next(turns, None)
        if turn == 1:
            writer = LogWriter(path)
            writer.write(OUT, b"late\n")
            writer.close()
        return turn is not None

    assert texts(path, follow=alive) == ["late\n"]


def test_half_a_line_is_shown_when_it_is_whole(path: Path) -> None:
    whole = b'{"log":"whole\\n","stream":"stdout","time":"t"}\n'
    path.write_bytes(whole + whole[:20])
    assert texts(path) == ["whole\n"]
    turns = iter(range(2))

    def alive() -> bool:
        if next(turns, None) is None:
            return False
        with path.open("ab") as file:
            file.write(whole[20:] if path.stat().st_size < 2 * len(whole) else b"")
        return True

    assert texts(path, follow=alive) == ["whole\n", "whole\n"]
