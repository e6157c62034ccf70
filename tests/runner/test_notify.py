"""Calls of a child answered by this process: value, errno, the kernel's own way, a descriptor."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import AF_UNIX, recv_fds, socketpair

import pytest

from runner.runtime.notify import Listener, Notification
from store.linux import memory, paths

_MKDIR = {"x86_64": 83}.get(os.uname().machine)
_OPENAT = 257
_CHILD = """
import ctypes, os, socket, struct, sys
from store.linux import descriptors, memory, paths, processes, seccomp
def ret(k): return struct.pack("<HBBI", 6, 0, 0, k)
program = struct.pack("<HBBI", 0x20, 0, 0, 0) + struct.pack("<HBBI", 0x15, 0, 1, int(sys.argv[2]))
program += ret(0x7FC00000) + ret(0x7FFF0000)
processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)
fd = seccomp.load_seccomp_listener(program)
descriptors.send_descriptor(int(sys.argv[1]), b"x", fd)
os.close(fd)
try:
    print(eval(sys.argv[3]))
except OSError as error:
    print(error.errno)
"""


@contextmanager
def child(number: int, expression: str) -> Iterator[tuple[Listener, subprocess.Popen[str]]]:
    ours, theirs = socketpair(AF_UNIX)
    argv = [sys.executable, "-c", _CHILD, str(theirs.fileno()), str(number), expression]
    with ours, theirs, subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, pass_fds=[theirs.fileno()]) as process:
        _, fds, _, _ = recv_fds(ours, 1, 1)
        with Listener(fds[0]) as listener:
            yield listener, process
            process.wait()


def received(listener: Listener) -> Notification:
    found = listener.receive()
    assert found is not None
    return found


pytestmark = pytest.mark.skipif(_MKDIR is None, reason="needs x86_64's call numbers")


@pytest.mark.parametrize(
    ("value", "said"), [pytest.param(0, "None", id="success"), pytest.param(-13, "13", id="errno")]
)
def test_answer(tmp_path: Path, value: int, said: str) -> None:
    with child(83, f"os.mkdir({str(tmp_path / 'd')!r})") as (listener, process):
        call = received(listener)
        name = memory.read_memory(call.pid, call.arguments[0], 4096).split(b"\0")[0]
        assert (call.number, name) == (83, os.fsencode(tmp_path / "d"))
        assert listener.waits(call.cookie)
        listener.answer(call.cookie, value)
        assert not listener.waits(call.cookie)
        assert process.stdout is not None
        assert process.stdout.read().strip() == said
        assert listener.receive() is None
    assert not (tmp_path / "d").exists()


def test_go_on(tmp_path: Path) -> None:
    with child(83, f"os.mkdir({str(tmp_path / 'd')!r})") as (listener, _):
        listener.go_on(received(listener).cookie)
    assert (tmp_path / "d").is_dir()


def test_give_a_descriptor(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("given")
    with child(83, "os.read(ctypes.CDLL(None).mkdir(b'/nowhere', 0), 5)") as (listener, process):
        fd = os.open(tmp_path / "f", os.O_RDONLY)
        listener.give(received(listener).cookie, fd, close_on_exec=True)
        os.close(fd)
        assert process.stdout is not None
        assert process.stdout.read().strip() == "b'given'"


def test_write_into_the_caller() -> None:
    expression = "(lambda b: (ctypes.CDLL(None).mkdir(b, 0), b.value))(ctypes.create_string_buffer(b'before'))"
    with child(83, expression) as (listener, process):
        call = received(listener)
        memory.write_memory(call.pid, call.arguments[0], b"after!")
        listener.answer(call.cookie, 7)
        assert process.stdout is not None
        assert process.stdout.read().strip() == "(7, b'after!')"


def test_statx_tells_the_time_of_birth(tmp_path: Path) -> None:
    found = paths.statx(paths.AT_FDCWD, os.fsencode(tmp_path), paths.AT_SYMLINK_NOFOLLOW, 0x800)
    assert struct.unpack_from("<q", found, 80)[0] > 0
