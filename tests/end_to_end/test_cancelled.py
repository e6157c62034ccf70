"""Ctrl-C and SIGTERM in each phase of a build: it ends soon and quietly, and leaves the store as it was.

Each case is work that would take minutes, or wait for ever, so the signal arrives in the midst of it.
"""

from __future__ import annotations

import fcntl
import gzip
import io
import os
import resource
import signal
import socket
import struct
import subprocess
import tarfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from store.store import Store
from tests.support.cli import Tierce
from tests.support.fake_registry import fake_registry, silent_until
from tests.support.tiny_image import tiny_image

pytestmark = pytest.mark.root

HUGE = 1 << 40
"""Bytes of a sparse file: hours of hashing, no room on the disk."""


@dataclass
class Work:
    """A build that is under way. ``log`` gets its progress, ``unread`` are pipes whose other end it has."""

    tierce: Tierce
    context: Path
    log: Path
    held: ExitStack
    flags: tuple[str, ...] = (".",)
    stdin: int = subprocess.DEVNULL
    unread: list[int] = field(default_factory=list)
    largest: int = resource.RLIM_INFINITY
    """Bytes that a file may have."""

    def pipe(self) -> tuple[int, int]:
        """Both ends of a pipe, open as long as the work is."""
        ends = os.pipe()
        for end in ends:
            self.held.callback(os.close, end)
        return ends

    def dockerfile(self, text: str) -> None:
        (self.context / "Dockerfile").write_text(text)

    def logged(self, text: str) -> bool:
        return text in self.log.read_text()


Begun = Callable[[subprocess.Popen[bytes]], bool]
"""Whether the phase was reached, asked again and again."""


def reading(work: Work) -> Begun:
    """The Dockerfile comes through a pipe that stays open."""
    reader, writer = work.pipe()
    work.flags, work.stdin = ("-f", "-", "."), reader
    os.write(writer, b"FROM busybox\n")
    return lambda _: waiting_bytes(reader) == 0


def parsing(work: Work) -> Begun:
    """Nine megabytes of instructions, a second's work at least; the signal comes with the first."""
    text = "FROM busybox\n" + "".join(f"ENV A{n}=${{A{n - 1}:-x}} B='c d'\n" for n in range(250_000))
    work.dockerfile(text)
    return lambda process: has_open(process, "Dockerfile") or work.log.stat().st_size > 0 or reads_much(process)


def asking(work: Work) -> Begun:
    """A registry that accepts and says nothing."""
    server = work.held.enter_context(socket.create_server(("127.0.0.1", 0)))
    server.setblocking(False)
    work.dockerfile(f"FROM 127.0.0.1:{server.getsockname()[1]}/silent\n")

    def begun(_: subprocess.Popen[bytes]) -> bool:
        try:
            work.held.enter_context(server.accept()[0])
        except BlockingIOError:
            return False
        return True

    return begun


def pulling(work: Work) -> Begun:
    """A layer that does not come."""
    fake, released = work.held.enter_context(fake_registry()), threading.Event()
    work.held.callback(released.set)
    image = tiny_image({"f": b"x"})
    fake.blobs |= image.blobs
    fake.add_manifest("slow/image", "1", image.manifest)
    layer = image.manifest.layers[0].digest
    fake.on(f"GET .*/blobs/{layer}", silent_until(released))
    work.dockerfile(f"FROM {fake.host}/slow/image:1\nRUN true\n")
    return lambda _: any(str(layer) in seen.path for seen in fake.requests)


def hashing(work: Work) -> Begun:
    with (work.context / "huge").open("wb") as file:
        file.truncate(HUGE)
    work.dockerfile("FROM busybox\nCOPY huge /\n")
    return lambda process: has_open(process, "huge")


def hashing_stages(work: Work) -> Begun:
    """What a stage made, in a thread of the build."""
    work.dockerfile(
        f"FROM busybox AS made\nRUN mkdir /d && truncate -s {HUGE} /d/huge\n"
        "FROM busybox\nRUN --mount=from=made,source=/d,target=/d true\n"
    )
    return lambda process: has_open(process, "huge")


def unpacking(work: Work) -> Begun:
    """An archive of 64 GB of zeros, of which the disk need not hold more than a few."""
    work.largest = 4 << 30
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as out:
        entry = tarfile.TarInfo("huge")
        entry.size = 64 << 30
        out.write(entry.tobuf())
    (work.context / "bomb.tar.gz").write_bytes(packed.getvalue() + gzip.compress(bytes(1 << 26), 9) * 1024)
    work.dockerfile("FROM busybox\nADD bomb.tar.gz /\n")
    return lambda _: any(work.tierce.root.glob("overlay2/*/unpacked/huge"))


def copying(work: Work) -> Begun:
    """Many small files, from one stage to another."""
    work.dockerfile(
        "FROM busybox AS made\nRUN mkdir /d && for n in $(seq 15000); do : > /d/$n; done\n"
        "FROM busybox\nCOPY --from=made /d /copied\n"
    )
    return lambda _: any(work.tierce.root.glob("overlay2/*/diff/copied/*"))


def running(work: Work) -> Begun:
    work.dockerfile("FROM busybox\nRUN echo begun; trap '' INT TERM; sleep 600\n")
    return lambda _: work.logged(" begun")


def packing(work: Work) -> Begun:
    work.dockerfile(f"FROM busybox\nRUN truncate -s {HUGE} /huge\n")
    return lambda _: any(path.stat().st_size > 4096 for path in work.tierce.root.glob("ingest/*"))


def exporting(work: Work) -> Begun:
    """To a reader that does not read."""
    work.dockerfile("FROM busybox\n")
    work.flags = ("-o", "-", ".")
    reader, writer = work.pipe()
    work.unread = [writer]
    return lambda _: waiting_bytes(reader) >= 1 << 16


def waiting_bytes(pipe: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])


def has_open(process: subprocess.Popen[bytes], name: str) -> bool:
    """Whether the process has a file of that name open; in its threads that is the same table."""
    directory = Path(f"/proc/{process.pid}/fd")
    return any(name == os.path.basename(link) for link in _links(directory))


def _links(directory: Path) -> Iterator[str]:
    for path in list(directory.iterdir()):
        try:
            yield os.readlink(path)
        except FileNotFoundError:
            continue


def reads_much(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has read more than its own modules."""
    counted = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
    return int(counted["rchar"]) > 8_000_000


PHASES = [reading, parsing, asking, pulling, hashing, hashing_stages, unpacking, copying, running, packing, exporting]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_a_signal_ends_a_build(
    phase: Callable[[Work], Begun], number: int, code: int, tierce_with_busybox: Tierce, tmp_path: Path
) -> None:
    tierce = tierce_with_busybox
    work = Work(tierce, tmp_path / "context", tmp_path / "log", ExitStack())
    work.context.mkdir()
    with work.held:
        begun = phase(work)
        argv = tierce.argv("build", "--progress=plain", "--network=none", *work.flags)
        stdout = work.unread[0] if work.unread else subprocess.DEVNULL
        with work.log.open("wb") as log:
            process = subprocess.Popen(
                argv, cwd=work.context, env=tierce.env(), stdin=work.stdin, stdout=stdout, stderr=log
            )
        try:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (work.largest, work.largest))
            deadline = time.monotonic() + 120
            while not begun(process):
                assert process.poll() is None, work.log.read_text()
                assert time.monotonic() < deadline, work.log.read_text()
                time.sleep(0.005)
            process.send_signal(number)
            assert process.wait(60) == code, work.log.read_text()
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in work.log.read_text()
    assert "tierce: " not in work.log.read_text()
    with Store.open(tierce.root) as store:
        assert store.layers.directories() == {layer.directory for layer in store.metadata.layers()}
        for place in ("ingest", "leases", "trash"):
            assert os.listdir(tierce.root / place) == []
    tierce("system", "check")
    tierce("build", "-q", "--network=none", "-", stdin="FROM busybox\nRUN true\n")
