"""Programs of another architecture, and a kernel that knows an emulator for them: for one command alone."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_SAYS = b"arm64 spoke\n"
_NAMESPACE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
NEWUSER, NEWNS, REC, PRIVATE = 0x10000000, 0x20000, 0x4000, 0x40000
def check(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
told, tell = os.pipe()
mapped, map_it = os.pipe()
child = os.fork()
if child == 0:
    check(libc.unshare(NEWUSER | NEWNS))
    os.write(tell, b"x")
    os.read(mapped, 1)
    check(libc.mount(b"none", b"/", None, REC | PRIVATE, None))
    place = "/proc/sys/fs/binfmt_misc"
    check(libc.mount(b"binfmt_misc", place.encode(), b"binfmt_misc", 0, None))
    with open(place + "/register", "w") as file:
        file.write(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])
os.read(told, 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{child}/{name}", "w") as file:
        file.write("0 0 65536")
os.write(map_it, b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Since Linux 6.7 each user namespace may have handlers of its own, which go with it."""


def arm64_program() -> bytes:
    """A whole ELF executable for arm64 that writes ``arm64 spoke`` and ends."""
    code = struct.pack(
        "<8I",
        0xD2800020,  # mov x0, #1
        0x100000E1,  # adr x1, the text behind the code
        0xD2800002 | len(_SAYS) << 5,  # mov x2, #length
        0xD2800808,  # mov x8, #64 (write)
        0xD4000001,  # svc #0
        0xD2800000,  # mov x0, #0
        0xD2800BA8,  # mov x8, #93 (exit)
        0xD4000001,  # svc #0
    )
    base, start = 0x400000, 64 + 56
    size = start + len(code) + len(_SAYS)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = identity + struct.pack("<2HI3QI6H", 2, 183, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<2I6Q", 1, 5, 0, base, base, size, size, 0x1000)
    return header + segment + code + _SAYS


def with_emulator(emulator: Path, argv: tuple[str, ...]) -> tuple[str, ...]:
    """``argv``, as root of a user namespace where ``emulator`` is registered for arm64, flags P and F."""
    magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    line = f":qemu-aarch64:M::{magic}:{mask}:{emulator}:PF"
    return (sys.executable, "-c", _NAMESPACE, line, *argv)
