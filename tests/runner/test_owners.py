"""Who a process is taken for, by the rules of the kernel; which calls are asked for."""

from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from runner.owners import filter as seccomp_filter
from runner.owners.calls import Call, identity
from runner.owners.credentials import Credentials
from runner.owners.supervisor import handlers_of

_USER = Credentials((1000, 1000, 1000), (50, 50, 50))
_SET_UID = Credentials((1000, 0, 0), (50, 50, 50))
_LEAVE = 0xFFFFFFFF


class _Table:
    def __init__(self, now: Credentials) -> None:
        self.now = now

    def of(self, _: int) -> Credentials:
        return self.now

    def set(self, _: int, credentials: Credentials) -> None:
        self.now = credentials


@pytest.mark.parametrize(
    ("now", "call", "arguments", "result", "uids"),
    [
        pytest.param(Credentials(), "setuid", (7,), 0, (7, 7, 7), id="root-setuid-sets-all"),
        pytest.param(_USER, "setuid", (0,), -1, (1000, 1000, 1000), id="user-may-not"),
        pytest.param(_USER, "setuid", (1000,), 0, (1000, 1000, 1000), id="user-to-itself"),
        pytest.param(_SET_UID, "setresuid", (_LEAVE, 1000, _LEAVE), 0, (1000, 1000, 0), id="drop-for-a-while"),
        pytest.param(replace(_SET_UID, uids=(1000, 1000, 0)), "setuid", (0,), 0, (1000, 0, 0), id="and-back"),
        pytest.param(Credentials(), "setreuid", (_LEAVE, 5), 0, (0, 5, 5), id="setreuid-saves-the-new"),
        pytest.param(_USER, "setreuid", (_LEAVE, 0), -1, (1000, 1000, 1000), id="setreuid-may-not"),
        pytest.param(replace(_USER, keeps=True), "setuid", (9,), 0, (9, 9, 9), id="keepcaps"),
    ],
)
def test_user_changes(
    now: Credentials, call: str, arguments: tuple[int, ...], result: int, uids: tuple[int, int, int]
) -> None:
    table = _Table(now)
    world: Any = SimpleNamespace(credentials=table)
    assert getattr(identity, call)(Call(world, 0, 1, (*arguments, 0, 0, 0))) == result
    assert table.now.uids == uids


@pytest.mark.parametrize("abi", ["x86_64", "x86", "aarch64"])
def test_every_call_that_is_asked_for_has_an_answer(abi: str) -> None:
    known = seccomp_filter.numbers(abi)
    assert handlers_of(abi).keys() == {known[name] for name in seccomp_filter.ASKED if name in known}


@pytest.mark.parametrize(
    ("name", "arguments", "action"),
    [
        pytest.param("chown", (), 0x7FC00000, id="chown"),
        pytest.param("openat", (0, 0, 0o100), 0x7FC00000, id="open-that-creates"),
        pytest.param("openat", (0, 0, 0o2), 0x7FFF0000, id="open"),
        pytest.param("rename", (), 0x7FFF0000, id="rename-without-tables"),
        pytest.param("prlimit64", (0, 15, 1), 0x50000, id="our-limit-set"),
        pytest.param("prlimit64", (0, 15, 0), 0x7FFF0000, id="our-limit-read"),
        pytest.param("prlimit64", (0, 7, 1), 0x7FFF0000, id="another-limit"),
        pytest.param("io_uring_setup", (), 0x50026, id="io-uring"),
        pytest.param("read", (), 0x7FFF0000, id="read"),
    ],
)
@pytest.mark.parametrize("abi", ["x86_64", "x86"])
def test_filter(abi: str, name: str, arguments: tuple[int, ...], action: int) -> None:
    number = seccomp_filter.numbers(abi)[name]
    program = seccomp_filter.program("x86_64", renames=False)
    assert _run(program, seccomp_filter.ARCHITECTURES[abi], number, arguments) == action


def _run(program: bytes, arch: int, number: int, arguments: tuple[int, ...]) -> int:
    """The instructions that the filter uses, on ``struct seccomp_data``."""
    data = struct.pack("<iIQ6Q", number, arch, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    steps = list(struct.iter_unpack("<HBBI", program))
    position = value = 0
    while True:
        code, yes, no, operand = steps[position]
        position += 1
        match code:
            case 0x20:
                value = int.from_bytes(data[operand : operand + 4], "little")
            case 0x05:
                position += operand
            case 0x06:
                return int(operand)
            case _:
                held = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
                position += yes if held else no
