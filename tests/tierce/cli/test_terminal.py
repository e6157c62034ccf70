"""Drawing on a terminal: what the screen shows, told by a small terminal that obeys the escapes."""

from __future__ import annotations

import io
import re

import pytest

from tierce.cli.terminal import LiveBlock, cells, clip, is_live, printable


class Screen(io.StringIO):
    """A terminal of a given size: lines that scroll, a cursor, and the escapes that LiveBlock uses."""

    def __init__(self, columns: int = 40, rows: int = 6) -> None:
        super().__init__()
        self.size = (columns, rows)
        self.lines = [""]
        self.row = 0
        self.cursor_shown = True

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for piece in re.findall(r"\x1b\[\??\d*[A-Za-z]|\n|[^\x1b\n]+", text):
            self._obey(piece)
        return len(text)

    def _obey(self, piece: str) -> None:
        if piece == "\n":
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append("")
        elif piece in {"\x1b[?25l", "\x1b[?25h"}:
            self.cursor_shown = piece.endswith("h")
        elif piece.endswith("F"):
            self.row -= int(piece[2:-1])
            assert self.row >= max(0, len(self.lines) - self.size[1]), "the cursor left the screen"
        elif piece == "\x1b[K":
            pass  # each line is written whole before it
        elif piece == "\x1b[J":
            del self.lines[self.row :]
            self.lines.append("")
        else:
            assert cells(piece) <= self.size[0], "the line would wrap"
            self.lines[self.row] = piece

    @property
    def shown(self) -> list[str]:
        return self.lines[:-1]


def _block(screen: Screen) -> LiveBlock:
    return LiveBlock(screen, lambda: screen.size)


def test_a_block_is_redrawn_in_place() -> None:
    screen = Screen()
    with _block(screen) as block:
        block.draw(["one", "two"])
        block.draw(["ONE", "TWO"])
    assert screen.shown == ["ONE", "TWO"]
    assert screen.cursor_shown


def test_lines_above_scroll_away_and_a_smaller_block_leaves_nothing() -> None:
    screen = Screen()
    with _block(screen) as block:
        block.draw(["a", "b", "c"])
        block.draw(["c"], above=["a done"])
        assert screen.shown == ["a done", "c"]
        block.draw([], above=["c done"])
    assert screen.shown == ["a done", "c done"]


def test_more_lines_than_rows_keep_the_cursor_on_the_screen() -> None:
    screen = Screen(rows=4)
    with _block(screen) as block:
        for frame in range(3):
            block.draw([f"{frame}.{line}" for line in range(10)])
    assert screen.shown[-3:] == ["2.7", "2.8", "2.9"]


def test_long_lines_are_clipped_to_the_width_of_each_frame() -> None:
    screen = Screen(columns=5)
    with _block(screen) as block:
        block.draw(["abcdefgh"])
        screen.size = (3, 6)
        block.draw(["abcdefgh"])
    assert screen.shown == ["abc"]


def test_erase_leaves_no_trace() -> None:
    screen = Screen()
    block = _block(screen)
    block.draw(["x"])
    block.erase()
    block.close()
    assert screen.shown == []
    assert screen.cursor_shown


@pytest.mark.parametrize(
    ("environ", "live"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "CI": "true"}, False), ({"TERM": "dumb"}, False), ({}, False)],
    ids=["terminal", "ci", "dumb", "no-term"],
)
def test_is_live(environ: dict[str, str], live: bool) -> None:
    assert is_live(Screen(), environ) is live
    assert not is_live(io.StringIO(), environ)


def test_wide_characters_count_two_cells() -> None:
    assert cells("名a") == 3
    assert clip("名前", 3) == "名"


def test_control_characters_from_outside_lose_their_power() -> None:
    assert printable("a\x1b[31mb\nc") == "a\ufffd[31mb c"
