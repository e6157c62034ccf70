"""The journal of events: many writers, files that are renamed under them, lines that a kill has cut."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from store.journal import Event, Journal
from tests.support.waiting import until

CHECKOUT = Path(__file__).parents[2]
WRITER = """
import sys
from pathlib import Path
from store.journal import Journal
journal = Journal(Path(sys.argv[1]), limit=int(sys.argv[2]))
for number in range(int(sys.argv[3])):
    journal.write("container", "start", f"{sys.argv[4]}-{number}", {"name": "x" * 100})
"""


def read(root: Path, since_ns: int = 0) -> list[Event]:
    return list(Journal(root).read(since_ns))


def test_an_event_comes_back(tmp_path: Path) -> None:
    Journal(tmp_path).write("image", "tag", "sha256:1", {"name": 'a"\n\u00e9'})
    (event,) = read(tmp_path)
    assert (event.kind, event.action, event.id, dict(event.attributes)) == (
        "image",
        "tag",
        "sha256:1",
        {"name": 'a"\n\u00e9'},
    )
    assert read(tmp_path, event.time_ns) == [event]
    assert read(tmp_path, event.time_ns + 1) == []


def test_nothing_has_happened(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_many_processes_write_whole_lines(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", WRITER, str(tmp_path), str(1 << 30), "300"]
    writers = [subprocess.Popen([*argv, name], cwd=CHECKOUT) for name in "abcd"]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 4
    assert {event.id for event in read(tmp_path)} == {f"{name}-{number}" for name in "abcd" for number in range(300)}


def test_what_is_kept_is_bounded_and_a_follower_misses_nothing(tmp_path: Path) -> None:
    """Files of some twenty events, renamed again and again while several write and one follows."""
    limit, told, seen = 4000, threading.Event(), list[str]()
    Journal(tmp_path, limit=limit).write("container", "first", "first", {})

    def follow() -> None:
        for event in Journal(tmp_path, limit=limit).read(0, follow=lambda: not told.is_set()):
            seen.append(event.id)

    follower = threading.Thread(target=follow)
    follower.start()
    until(lambda: seen == ["first"])
    journal = Journal(tmp_path, limit=limit)
    for number in range(100):
        journal.write("container", "start", str(number), {"name": "x" * 100})
        if number % 10 == 9:
            until(lambda number=number: len(seen) == number + 2)  # type: ignore[misc]
    told.set()
    follower.join(timeout=20)
    assert seen == ["first", *map(str, range(100))]
    files = sorted((tmp_path / "events").iterdir())
    assert {path.name for path in files} <= {"journal", "journal.1"}
    assert all(path.stat().st_size < limit + 200 for path in files)
    kept = [event.id for event in read(tmp_path)]
    assert kept == [str(number) for number in range(100)][-len(kept) :]


def test_a_line_that_was_cut_costs_no_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("container", "create", "one", {})
    with (tmp_path / "events" / "journal").open("ab") as file:
        file.write(b'\n[17955,"container","sta')
    journal.write("container", "start", "two", {})
    assert [event.id for event in read(tmp_path)] == ["one", "two"]


def test_what_can_not_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("in the way")
    Journal(tmp_path).write("container", "create", "one", {})
    assert read(tmp_path) == []
