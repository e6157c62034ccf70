"""Layers packed in a process of their own: the same bytes, clear errors, and nothing left however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from image.errors import Cancelled, InvalidInput, StorageError
from store.layer_blob import PackedBlob, pack_blob
from store.packers import Packers
from store.store import Session, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression

pytestmark = pytest.mark.root

MANY = 600
"""Files: more than are packed without a process."""


@pytest.fixture
def packers() -> Iterator[Packers]:
    found = Packers()
    yield found
    found.close()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Store.open(tmp_path / "store") as store, store.session() as session:
        yield session


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """More files than are packed without a process."""
    path = tmp_path / "upper"
    for number in range(MANY):
        file = path / f"d{number % 9}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"%d" % number * number)
    return path


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A layer that takes many seconds to pack, and no space."""
    path = tmp_path / "huge"
    path.mkdir()
    with (path / "hole").open("wb") as file:
        file.truncate(64 << 30)
    return path


def pack(packers: Packers, session: Session, directory: Path, compression: Compression = "gzip") -> PackedBlob:
    with session.writer() as writer:
        packed = packers.pack(directory, writer, compression)
        writer.commit_as(packed.digest)
    assert session.content.size(packed.digest) == packed.size
    return packed


def children() -> set[int]:
    """Processes that this one started and that have not ended."""
    text = "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    return {int(word) for word in text.split()}


def await_that(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("compression", ["uncompressed", "gzip", "zstd"])
def test_another_process_packs_the_same(
    packers: Packers, session: Session, upper: Path, compression: Compression
) -> None:
    before = children()
    packed = pack(packers, session, upper, compression)
    assert packed == pack_blob(upper, lambda _: None, compression)
    assert pack(packers, session, upper, compression) == packed
    assert len(children() - before) == 1  # one process for both
    packers.close()
    assert children() == before


def test_a_small_layer_starts_no_process(packers: Packers, session: Session, upper: Path) -> None:
    before = children()
    pack(packers, session, upper / "d1")
    assert children() == before


def test_what_a_layer_cannot_say_is_an_error_and_the_next_layer_is_packed(
    packers: Packers, session: Session, upper: Path
) -> None:
    (upper / "d3" / ".wh.x").touch()
    with pytest.raises(InvalidInput, match=r"cannot store 'd3/\.wh\.x' in a layer: [^\n]*\Z"):
        pack(packers, session, upper)
    (upper / "d3" / ".wh.x").unlink()
    pack(packers, session, upper)


def test_a_blob_that_cannot_be_written_is_an_error(packers: Packers, session: Session, upper: Path) -> None:
    with session.writer() as writer, Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), writer.fileno())
        with pytest.raises(StorageError, match=r"\Awrite a blob in [^\n]*: no space left on device: [^\n]*\Z"):
            packers.pack(upper, writer, "gzip")


def test_a_killed_packer_is_an_error_and_the_next_layer_is_packed(
    packers: Packers, session: Session, huge: Path, upper: Path
) -> None:
    before = children()
    thread, raised = in_thread(lambda: pack(packers, session, huge))
    await_that(lambda: bool(children() - before))
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
    thread.join()
    (error,) = raised
    assert isinstance(error, StorageError)
    assert str(error) == "cannot pack a layer: its process was killed by signal 9, try again"
    assert not list(session.store.root.joinpath("ingest").iterdir())
    pack(packers, session, upper)


def test_abort_ends_what_is_under_way_and_refuses_more(
    packers: Packers, session: Session, huge: Path, upper: Path
) -> None:
    before = children()
    thread, raised = in_thread(lambda: pack(packers, session, huge))
    await_that(lambda: bool(children() - before))
    packers.abort()
    thread.join()
    assert [type(error) for error in raised] == [Cancelled]
    assert children() == before
    assert not list(session.store.root.joinpath("ingest").iterdir())
    with pytest.raises(Cancelled):
        pack(packers, session, upper)


_PROGRAM = """\
import sys, threading, time
from pathlib import Path
from store.packers import Packers
from store.store import Store
with Store.open(Path(sys.argv[1])) as store, store.session() as session, session.writer() as writer:
    packers = Packers()
    threading.Thread(target=packers.pack, args=(Path(sys.argv[2]), writer, "gzip"), daemon=True).start()
    while not packers._busy or not packers._busy[0]._pid:
        time.sleep(0.01)
    print(packers._busy[0]._pid, flush=True)
    time.sleep(600)
"""


def test_the_packer_ends_with_a_killed_build(tmp_path: Path, huge: Path) -> None:
    root = tmp_path / "store"
    program = [sys.executable, "-c", _PROGRAM, str(root), str(huge)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as building:
        assert building.stdout is not None
        packer = int(building.stdout.readline())
        await_that(lambda: any(path.stat().st_size > 1000 for path in (root / "ingest").iterdir()))
        building.kill()
    await_that(lambda: not is_running(packer))
    with Store.open(root) as store, store.session():
        assert not list((root / "ingest").iterdir())
