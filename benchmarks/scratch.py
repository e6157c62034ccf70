"""The place of one run of the benchmarks, and what all of its tools make on the machine: gone again, however it ends.

    /tmp/tierce-bench-X    locked (flock) while the run lives
        before             what the host's network had before, as JSON
        ext4, scratch/     the file system of all tools

A run that gets SIGINT, SIGTERM or SIGHUP unwinds, and no second one stops it from that. What was
killed is swept up by the next run.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.support import ordinary_user, podman
from tests.support.dockerd import CGROUP as DOCKERS_CGROUP
from tests.support.process import command, remove_cgroups, unmount_below

_PREFIX: Final = "tierce-bench-"
_SIZE: Final = 24 << 30
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TUN: Final = Path("/dev/net/tun")
_TABLES: Final = ("ip filter", "ip nat", "ip6 filter", "ip6 nat")
"""Which iptables makes, for podman's networks here."""
_FILES: Final = (("/var/lib/cni", "networks/podman/*"), ("/var/lib/cni", "results/*"), ("/run/netns", "netns-*"))
_LASTING_S: Final = 10.0
LastLook = Callable[[Path], object]


@contextmanager
def scratch_file_system(last: LastLook) -> Iterator[Path]:
    """An empty ext4 for all tools, in a sparse file; ``last`` is done with it once no tool runs any more.

    Making a tree where one was just deleted can take ten times as long on ext4, which looks
    through recently freed inodes: figures from a used file system say more of its past than
    of the tools.
    """
    sweep(last)
    with _signals() as hold:
        directory, lock = _make_directory()
        try:
            (directory / "before").write_text(json.dumps(_host()))
            yield _mounted(directory)
        finally:
            hold()
            _remove(directory, last)
            os.close(lock)


def sweep(last: LastLook) -> None:
    """Remove what runs that were killed have left."""
    for note in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/before"):
        directory = note.parent
        if (lock := _lock(directory)) >= 0:
            print(f"sweeping {directory}, of a run that was killed", file=sys.stderr)
            _remove(directory, last)
            os.close(lock)


@contextmanager
def _signals() -> Iterator[Callable[[], None]]:
    """The first one ends the run, unless it is ending: so from when the function was called on."""
    ending = False

    def hold() -> None:
        nonlocal ending
        ending = True

    def take(number: int, _: object) -> None:
        if not ending:
            hold()
            print("\ninterrupted: ending what runs, and removing it", file=sys.stderr)
            raise SystemExit(128 + number)

    before = {number: signal.signal(number, take) for number in _ENDING}
    try:
        yield hold
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_directory() -> tuple[Path, int]:
    """Reachable for other users, and locked."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        directory.chmod(0o711)
        if (lock := _lock(directory)) >= 0:
            return directory, lock  # else somebody sweeps it up, who was quicker


def _lock(directory: Path) -> int:
    """A descriptor; -1 when another process holds it, or it is gone."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        directory.stat()
    except OSError:
        os.close(fd)
        return -1
    return fd


def _mounted(directory: Path) -> Path:
    image, scratch = directory / "ext4", directory / "scratch"
    scratch.mkdir()
    with image.open("wb") as file:
        file.truncate(_SIZE)
    command(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)])
    command(["mount", "-o", "loop", str(image), str(scratch)])
    return scratch


def _remove(directory: Path, last: LastLook) -> None:
    scratch = directory / "scratch"
    end_processes(directory)
    if scratch.is_mount():
        last(scratch)
    for user in pwd.getpwall():
        if Path(user.pw_dir).is_relative_to(directory):
            ordinary_user.remove(user.pw_name)
    unmount_below(directory)
    for name in (podman.CGROUP, DOCKERS_CGROUP):
        with suppress(OSError):  # a process in it has not ended yet
            remove_cgroups(name)
    with suppress(OSError, ValueError):  # it was stopped before it had written that
        _restore(json.loads((directory / "before").read_text()))
    shutil.rmtree(directory, ignore_errors=True)


# --- processes ------------------------------------------------------------------------------


def end_processes(directory: Path) -> None:
    """Kill those of our tools and containers, and wait until they are gone."""
    deadline = time.monotonic() + _LASTING_S
    while (found := _processes(f"{directory}/")) and time.monotonic() < deadline:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _processes(mark: str) -> list[int]:
    """Who was started with a path in the directory, has files there, or sees one as its root."""
    others = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in others if pid != os.getpid() and _belongs(Path("/proc", str(pid)), mark)]


def _belongs(process: Path, mark: str) -> bool:
    try:
        if any(mark.encode() in (process / name).read_bytes() for name in ("cmdline", "environ")):
            return True
        if any(os.readlink(fd).startswith(mark) for fd in (process / "fd").iterdir()):
            return True
        mounts = (process / "mountinfo").read_text().splitlines()
        return any(line.split(" ")[4] == "/" and mark in line for line in mounts)
    except OSError:  # it has ended
        return False


# --- the host -------------------------------------------------------------------------------


def _host() -> dict[str, list[str]]:
    """What podman's networks and an ordinary user's need of the host, and nothing takes back."""
    return {
        "links": os.listdir("/sys/class/net"),
        "tables": _tables(),
        "files": [str(path) for place, pattern in _FILES for path in Path(place).glob(pattern)],
        "tun": [str(_TUN.stat().st_mode & 0o7777)] if _TUN.exists() else [],
    }


def _tables() -> list[str]:
    if not shutil.which("nft"):
        return []
    listed = command(["nft", "list", "tables"]).splitlines()
    return [line.removeprefix("table ") for line in listed if line.removeprefix("table ") in _TABLES]


def _restore(before: dict[str, list[str]]) -> None:
    after = _host()
    for link in {*after["links"]} - {*before["links"]}:
        if link.startswith("cni-podman"):
            _quietly("ip", "link", "delete", link)
    for table in {*after["tables"]} - {*before["tables"]}:
        _quietly("nft", "delete", "table", *table.split())
    lived_in = _network_namespaces()
    for path in {*after["files"]} - {*before["files"]}:
        if os.stat(path).st_ino in lived_in:  # somebody else's, begun meanwhile
            continue
        _quietly("umount", "--lazy", path)
        Path(path).unlink(missing_ok=True)
    for mode in before["tun"]:
        _TUN.chmod(int(mode))


def _network_namespaces() -> set[int]:
    """Inodes of those that a process is in."""
    found = set()
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            found.add((process / "ns/net").stat().st_ino)
    return found


def _quietly(*argv: str) -> None:
    subprocess.run(argv, check=False, capture_output=True)
