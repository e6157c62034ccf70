"""The device list of a container on cgroup v2: rules → an eBPF program. Pure.

Version 2 has no devices file: the kernel asks a program whether a process may make, read or
write a device. The last rule that fits decides, as in version 1, so the program tries them
from the last to the first; nothing fitting means no.

Source: Linux ``include/uapi/linux/bpf.h``, ``struct bpf_cgroup_dev_ctx``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import pack
from typing import Final

from runner.runtime.spec import DeviceRule

_TYPES: Final = {"b": 1, "c": 2}
_ACCESS: Final = {"m": 1, "r": 2, "w": 4}
_EVERY_ACCESS: Final = 7

# registers
_ANSWER, _CONTEXT, _TYPE, _ASKED, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5
# instruction codes
_LOAD_WORD, _AND, _SHIFT_RIGHT, _MOVE, _MOVE_REGISTER, _JUMP_UNEQUAL, _JUMP_EQUAL, _EXIT = (
    0x61, 0x54, 0x74, 0xB4, 0xBC, 0x55, 0x15, 0x95,
)  # fmt: skip


def compile_device_filter(rules: Sequence[DeviceRule]) -> bytes:
    """The program for these rules, instructions of 8 bytes."""
    program = [
        _instruction(_LOAD_WORD, _TYPE, _CONTEXT, offset=0),
        _instruction(_AND, _TYPE, value=0xFFFF),
        _instruction(_LOAD_WORD, _ASKED, _CONTEXT, offset=0),
        _instruction(_SHIFT_RIGHT, _ASKED, value=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, offset=4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, offset=8),
    ]
    for rule in reversed(rules):
        program += _rule(rule)
        if not list(_tests(rule)):  # fits always: the kernel refuses instructions that are never reached
            return b"".join(program)
    return b"".join([*program, *_answer(allow=False)])


def _instruction(code: int, destination: int = 0, source: int = 0, *, offset: int = 0, value: int = 0) -> bytes:
    return pack("<BBhi", code, destination | source << 4, offset, value)


def _answer(*, allow: bool) -> list[bytes]:
    return [_instruction(_MOVE, _ANSWER, value=int(allow)), _instruction(_EXIT)]


def _rule(rule: DeviceRule) -> Iterator[bytes]:
    """Tests that jump behind the answer when the rule does not fit, then the answer."""
    tests = list(_tests(rule))
    answer = _answer(allow=rule.allow)
    for position, test in enumerate(tests):
        behind = len(tests) - position - 1 + len(answer)
        yield test if len(test) == 8 else _instruction(test[0], test[1], offset=behind, value=test[2])
    yield from answer


def _tests(rule: DeviceRule) -> Iterator[bytes | tuple[int, int, int]]:
    """Whole instructions, and jumps out as code, register and value."""
    if rule.type in _TYPES:
        yield _JUMP_UNEQUAL, _TYPE, _TYPES[rule.type]
    access = sum(_ACCESS[letter] for letter in set(rule.access) & set(_ACCESS))
    if access != _EVERY_ACCESS and rule.type != "a":
        yield _instruction(_MOVE_REGISTER, _ANSWER, _ASKED)
        if rule.allow:  # fits when nothing else is asked for
            yield _instruction(_AND, _ANSWER, value=_EVERY_ACCESS & ~access)
            yield _JUMP_UNEQUAL, _ANSWER, 0
        else:  # fits when any of it is asked for
            yield _instruction(_AND, _ANSWER, value=access)
            yield _JUMP_EQUAL, _ANSWER, 0
    for register, number in ((_MAJOR, rule.major), (_MINOR, rule.minor)):
        if rule.type != "a" and number is not None and number >= 0:
            yield _JUMP_UNEQUAL, register, number
