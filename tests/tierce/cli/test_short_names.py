"""A short name that several registries may have: asked on a terminal, remembered, or refused."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.registry import Registry
from tests.tierce.conftest import Stock

pytestmark = pytest.mark.peer


@pytest.fixture
def user(stock: Stock, tierce: Tierce, place: Registry, tmp_path: Path) -> Tierce:
    """A user whose short names may be at one of two registries, with an image at the second."""
    stock.add("pushed")
    tierce("copy", "-q", "pushed", f"docker://{place.name('team/app:1')}")
    conf = tmp_path / "registries.conf"
    conf.write_text(f'unqualified-search-registries = ["127.0.0.1:1", "{place.host}"]\nshort-name-mode = "enforcing"\n')
    own = {"CONTAINERS_REGISTRIES_CONF": str(conf), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    (tmp_path / "cache/containers").mkdir(parents=True)
    (tmp_path / "cache/containers/short-name-aliases.conf").write_text('[aliases]\n"other" = "q.example/other"\n')
    return Tierce(tmp_path / "other", own)


def at_a_terminal(tierce: Tierce, answer: str, *args: str) -> tuple[int, str]:
    """How a command ends that gets an answer typed, and what the terminal shows."""
    master, slave = pty.openpty()
    try:
        with subprocess.Popen(tierce.argv(*args), stdin=slave, stdout=slave, stderr=slave, env=tierce.env()) as process:
            os.close(slave)
            os.write(master, answer.encode())
            shown = b""
            try:
                while piece := os.read(master, 4096):
                    shown += piece
            except OSError:  # EIO: nobody has the other end any more
                pass
        return process.returncode, shown.decode()
    finally:
        os.close(master)


def test_the_choice_is_remembered(user: Tierce, place: Registry, tmp_path: Path) -> None:
    code, shown = at_a_terminal(user, "2\n", "pull", "team/app:1")
    assert code == 0, shown
    assert f"1  127.0.0.1:1/team/app:1\r\n  2  {place.name('team/app:1')}\r\n" in shown
    written = (tmp_path / "cache/containers/short-name-aliases.conf").read_text()
    assert written == f'[aliases]\n  "other" = "q.example/other"\n  "team/app" = "{place.host}/team/app"\n'
    assert user("pull", "-q", "team/app:1").stdout.strip() == place.name("team/app:1")


def test_nothing_is_remembered_that_failed(user: Tierce, tmp_path: Path) -> None:
    code, shown = at_a_terminal(user, "1\n", "pull", "team/app:1")
    assert (code, "127.0.0.1:1" in shown) == (1, True)
    code, shown = at_a_terminal(user, "3\n", "pull", "team/app:1")
    assert (code, "no image was selected" in shown) == (1, True)
    assert "team/app" not in (tmp_path / "cache/containers/short-name-aliases.conf").read_text()


def test_where_nobody_can_be_asked(user: Tierce) -> None:
    done = user.attempt("pull", "team/app:1")
    assert done.code == 1
    assert "short name 'team/app:1' is ambiguous: write 127.0.0.1:1/team/app:1 or" in done.stderr
