"""Whether root filesystems can be mounted on a store in a user namespace of one's own: found by doing.

A user namespace may be had where its mounts are not: a container's own file system is an overlay,
which can't be the upper side of another, and its /proc has masks, so that no new one is mounted.
Whoever is in the namespace can't go back, so a child tries before. It mounts where nobody sees it.
"""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from store.linux import mounts, processes

_PARTS: Final = ("lower", "upper", "work", "work/work", "merged")
_OVERLAYFS_SUPER_MAGIC: Final = 0x794C7630
_WORDS: Final = b"lowerdir=lower,upperdir=upper,workdir=work,userxattr"


def refused(store: Path) -> tuple[str, int]:
    """``(what, errno)`` of the mount that is refused below the directory ``store``; ``("", 0)`` when all is well.

    ``("", 0)`` also where a user namespace or the directory can't be had: whoever needs them says so.
    The directory is made, and what is made in it is gone afterwards. Only for one thread.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        fd = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return "", 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # one at a time: two overlays don't share a work directory
        return _tried(store / "probe")
    finally:
        os.close(fd)


def on_overlay(store: Path) -> bool:
    """Whether the directory, or what of its path is there, lies on an overlay: no overlay can write there."""
    place = store
    while not place.exists() and place != place.parent:
        place = place.parent
    if os.major(place.stat().st_dev):  # a disk, as usual
        return False
    from store.linux.confine import fstatfs

    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        return int.from_bytes(fstatfs(fd)[:8], sys.byteorder) == _OVERLAYFS_SUPER_MAGIC
    finally:
        os.close(fd)


def place_of(store: Path) -> str:
    """What the answer is good for: this directory, seen from this user namespace."""
    with suppress(OSError):
        status = store.stat()
        return f"{os.readlink('/proc/self/ns/user')} {status.st_dev} {status.st_ino}"
    return ""


def _tried(place: Path) -> tuple[str, int]:
    receiver, sender = os.pipe2(os.O_CLOEXEC)
    uid, gid = os.geteuid(), os.getegid()
    pid = os.fork()
    if pid == 0:
        try:
            _try(place, uid, gid, sender)
        finally:
            os._exit(0)
    os.close(sender)
    with open(receiver, encoding="utf-8") as report:
        what, _, number = report.read().rpartition(" ")
    os.waitpid(pid, 0)
    for part in (*reversed(_PARTS), "."):
        with suppress(OSError):
            os.rmdir(place / part)
    return what, int(number or 0)


def _try(place: Path, uid: int, gid: int, report: int) -> None:
    """In a child: the first mount that fails is reported."""
    for part in _PARTS:
        (place / part).mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    try:
        processes.unshare(processes.CLONE_NEWUSER | processes.CLONE_NEWNS | processes.CLONE_NEWPID)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            Path("/proc/self", name).write_text(text)
    except OSError:
        return
    pid = os.fork()  # the first of a pid namespace, whose /proc it may mount
    if pid:
        os.waitpid(pid, 0)
        return
    for what, kind, words in (("overlay", b"overlay", _WORDS), ("proc", b"proc", b"")):
        try:
            mounts.mount(kind, b"merged", kind, 0, words)
        except OSError as error:
            os.write(report, f"{what} {error.errno}".encode())
            return
