"""The compiler of filters, and docker's filter at work on real system calls."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from struct import iter_unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.errors import InvalidSpec
from runner.runtime import capabilities, seccomp
from runner.runtime.seccomp_default import default_filter
from runner.runtime.spec import Seccomp, SeccompArgument, SeccompRule
from store.linux.seccomp import seccomp_has_action

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_X86_64 = 0xC000003E


def verdict(program: bytes, number: int, args: tuple[int, ...] = (), arch: int = _X86_64) -> int:
    """What the program returns: an interpreter of the instructions that filters are made of."""
    instructions = list(iter_unpack("<HBBI", program))
    data = number.to_bytes(4, "little") + arch.to_bytes(4, "little") + bytes(8)
    data += b"".join(value.to_bytes(8, "little") for value in (*args, 0, 0, 0, 0, 0, 0)[:6])
    at = accumulator = 0
    while True:
        code, yes, no, value = instructions[at]
        at += 1
        match code:
            case 0x20:
                accumulator = int.from_bytes(data[value : value + 4], "little")
            case 0x54:
                accumulator &= value
            case 0x05:
                at += value
            case 0x15:
                at += yes if accumulator == value else no
            case 0x25:
                at += yes if accumulator > value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(code)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_shipped_filter_is_what_the_compiler_makes(machine: str) -> None:
    rules = seccomp.docker_rules(capabilities.DEFAULT, machine)
    assert default_filter(machine) == seccomp.compile_filter(rules, machine)


def test_filter_fits_the_kernel() -> None:
    program = default_filter("x86_64")
    assert program is not None
    assert len(program) // 8 < 4096


class TestComparisons:
    @given(
        op=st.sampled_from(["EQ", "NE", "LT", "LE", "GT", "GE"]),
        value=st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**32 + 1]),
        actual=st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**32 + 1]),
    )
    def test_like_arithmetic(self, op: str, value: int, actual: int) -> None:
        rule = SeccompRule(("read",), "SCMP_ACT_ALLOW", args=(SeccompArgument(1, value, f"SCMP_CMP_{op}"),))
        program = seccomp.compile_filter(Seccomp("SCMP_ACT_ERRNO", rules=(rule,)), "x86_64")
        expected = {
            "EQ": actual == value, "NE": actual != value, "LT": actual < value,
            "LE": actual <= value, "GT": actual > value, "GE": actual >= value,
        }[op]  # fmt: skip
        assert verdict(program, 0, (7, actual)) == (_ALLOW if expected else _ERRNO | errno.EPERM)

    @given(mask=st.integers(0, 2**64 - 1), actual=st.integers(0, 2**64 - 1), wanted=st.integers(0, 2**64 - 1))
    def test_masked(self, mask: int, actual: int, wanted: int) -> None:
        argument = SeccompArgument(0, mask, "SCMP_CMP_MASKED_EQ", wanted & mask)
        rule = SeccompRule(("read",), "SCMP_ACT_ALLOW", args=(argument,))
        program = seccomp.compile_filter(Seccomp("SCMP_ACT_ERRNO", rules=(rule,)), "x86_64")
        assert (verdict(program, 0, (actual,)) == _ALLOW) is (actual & mask == wanted & mask)

    def test_all_must_hold(self) -> None:
        args = (SeccompArgument(0, 1, "SCMP_CMP_EQ"), SeccompArgument(1, 2, "SCMP_CMP_EQ"))
        rule = SeccompRule(("read",), "SCMP_ACT_ALLOW", args=args)
        program = seccomp.compile_filter(Seccomp("SCMP_ACT_ERRNO", rules=(rule,)), "x86_64")
        assert [verdict(program, 0, pair) == _ALLOW for pair in ((1, 2), (1, 3), (0, 2))] == [True, False, False]

    def test_narrow_abis_ignore_the_upper_half(self) -> None:
        rule = SeccompRule(("read",), "SCMP_ACT_ALLOW", args=(SeccompArgument(0, 5, "SCMP_CMP_EQ"),))
        rules = Seccomp("SCMP_ACT_ERRNO", architectures=("SCMP_ARCH_X86",), rules=(rule,))
        program = seccomp.compile_filter(rules, "x86_64")
        read_of_x86 = 3
        assert verdict(program, read_of_x86, (5 | 1 << 40,), 0x40000003) == _ALLOW
        assert verdict(program, 0, (5 | 1 << 40,)) == _ERRNO | errno.EPERM


@given(numbers=st.sets(st.sampled_from(["read", "write", "close", "mount", "getpid", "statx", "clone3"])))
def test_exactly_the_named_calls_are_allowed(numbers: set[str]) -> None:
    rules = Seccomp("SCMP_ACT_ERRNO", rules=(SeccompRule(tuple(numbers), "SCMP_ACT_ALLOW"),))
    program = seccomp.compile_filter(rules, "x86_64")
    known = {"read": 0, "write": 1, "close": 3, "getpid": 39, "mount": 165, "statx": 332, "clone3": 435}
    assert {name for name, number in known.items() if verdict(program, number) == _ALLOW} == numbers


def test_unknown_architecture_kills() -> None:
    program = default_filter("x86_64") or b""
    assert verdict(program, 0, arch=0x1234) == 0x80000000


def test_calls_newer_than_the_profile_are_absent_rather_than_forbidden() -> None:
    program = default_filter("x86_64") or b""
    assert verdict(program, 600) == _ERRNO | errno.ENOSYS


def test_capabilities_open_their_calls() -> None:
    mount = 165
    with_admin = seccomp.compile_filter(seccomp.docker_rules(["CAP_SYS_ADMIN"], "x86_64"), "x86_64")
    without = seccomp.compile_filter(seccomp.docker_rules([], "x86_64"), "x86_64")
    assert verdict(with_admin, mount) == _ALLOW
    assert verdict(without, mount) == _ERRNO | errno.EPERM


@pytest.mark.parametrize(
    "rules",
    [
        Seccomp("SCMP_ACT_UNKNOWN"),
        Seccomp("SCMP_ACT_ALLOW", rules=(SeccompRule(("sendmsg",), "SCMP_ACT_NOTIFY"),)),
        Seccomp("SCMP_ACT_ALLOW", rules=(SeccompRule(("read",), "SCMP_ACT_KILL", args=(SeccompArgument(0, 0, "X"),)),)),
    ],
    ids=["default action", "notify", "operator"],
)
def test_what_cannot_be_compiled_is_refused(rules: Seccomp) -> None:
    with pytest.raises(InvalidSpec):
        seccomp.compile_filter(rules, "x86_64")


@dataclass(frozen=True)
class Call:
    name: str
    number: int
    args: tuple[int, ...]
    expected: int


_CALLS = (
    Call("getpid", 39, (), 0),
    Call("mount", 165, (), errno.EPERM),
    Call("clone3", 435, (0, 0), errno.ENOSYS),
    Call("clone into a user namespace", 56, (0x10000000 | 17,), errno.EPERM),
    Call("unshare", 272, (0x20000,), errno.EPERM),
    Call("personality linux", 135, (0,), 0),
    Call("personality no randomize", 135, (0x40000,), errno.EPERM),
    Call("socket unix", 41, (1, 1, 0), 0),
    Call("socket vsock", 41, (40, 1, 0), errno.EPERM),
    Call("keyctl", 250, (0,), errno.EPERM),
    Call("io_uring_setup", 425, (1, 0), errno.EPERM),
    Call("bpf", 321, (0,), errno.EPERM),
    Call("a call of the future", 600, (), errno.ENOSYS),
)
_PROBE = """
import ctypes, sys
from store.linux.seccomp import load_seccomp
from runner.runtime.seccomp_default import default_filter
libc = ctypes.CDLL(None, use_errno=True)
load_seccomp(default_filter("x86_64"))
for line in sys.argv[1:]:
    ctypes.set_errno(0)
    libc.syscall(*(ctypes.c_long(int(word)) for word in line.split()))
    print(ctypes.get_errno())
"""


@pytest.mark.root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")
def test_real_calls_under_dockers_filter() -> None:
    assert seccomp_has_action(_ALLOW)
    lines = [" ".join(str(word) for word in (call.number, *call.args)) for call in _CALLS]
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *lines],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    found = dict(zip((call.name for call in _CALLS), map(int, done.stdout.split()), strict=True))
    assert found == {call.name: call.expected for call in _CALLS}
