"""Seccomp filters: docker's profile → rules by name → a classic BPF program.

``resolve_profile`` decides which rules of a profile hold for a machine and a set of
capabilities; ``compile_filter`` turns rules into instructions. The program of docker's
profile with docker's capabilities is kept compiled: ``seccomp_default`` reads it without this
module, because compiling takes longer than starting a container.

The program asks for the architecture, then finds the system call by bisection: about ten
comparisons for each call of the container, where a list takes hundreds.
"""

from __future__ import annotations

import json
import posix
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from struct import pack
from typing import Any, Final

from image.document import Node
from image.errors import InvalidSpec
from image.value import dataclass
from runner.runtime.config_limits import seccomp_rule
from runner.runtime.spec import Seccomp, SeccompArgument, SeccompRule

_HERE: Final = Path(__file__).parent
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_KILL_PROCESS: Final = 0x80000000
_ENOSYS: Final = 38
_EPERM: Final = 1

_ACTIONS: Final = {
    "SCMP_ACT_ALLOW": _ALLOW,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
}
_NOTIFY: Final = "SCMP_ACT_NOTIFY"
_TAKES_ERRNO: Final = frozenset({"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"})

_AUDIT: Final = {"x86_64": 0xC000003E, "x86": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
_X32_BIT: Final = 0x40000000
_NARROW: Final = frozenset({"x86", "arm", "x32"})
"""ABIs whose arguments have 32 bits: the upper half of a register is not compared."""

_FAMILIES: Final = {"x86_64": ("x86_64", "x86", "x32"), "aarch64": ("aarch64", "arm")}
_OCI_NAMES: Final = {"x86_64": "X86_64", "x86": "X86", "x32": "X32", "aarch64": "AARCH64", "arm": "ARM"}
_DOCKER_NAMES: Final = {
    "x86_64": frozenset({"amd64", "x86", "x32"}),
    "aarch64": frozenset({"arm64", "arm"}),
}

# struct sock_filter codes
_LOAD = 0x20
_AND = 0x54
_JUMP = 0x05
_JUMP_EQUAL = 0x15
_JUMP_GREATER = 0x25
_JUMP_GREATER_EQUAL = 0x35
_RETURN = 0x06
_SYSCALL_NUMBER = 0
_ARCHITECTURE = 4
_FIRST_ARGUMENT = 16
_FARTHEST = 255
"""A conditional jump has eight bits for each distance."""

Instruction = tuple[int, int, int, int]


def docker_profile() -> dict[str, Any]:
    """Docker's default profile, as docker writes it."""
    profile: dict[str, Any] = json.loads((_HERE / "seccomp_default.json").read_bytes())
    return profile


def docker_rules(capabilities: Iterable[str], machine: str | None = None) -> Seccomp:
    """Docker's profile for these capabilities on this machine, or another."""
    return resolve_profile(docker_profile(), capabilities, machine or posix.uname().machine)


def resolve_profile(profile: Mapping[str, Any], capabilities: Iterable[str], machine: str) -> Seccomp:
    """The rules of a docker profile that hold for these capabilities on this machine.

    ``profile`` is the content of docker's default or of a ``--security-opt seccomp=FILE``.
    Raises InvalidSpec.
    """
    document = Node(profile, "", InvalidSpec)
    held = frozenset(capabilities)
    syscalls = document.get("syscalls")
    rules = (
        seccomp_rule(node)
        for node in (syscalls.items() if syscalls else ())
        if _holds(node, held, _DOCKER_NAMES.get(machine, frozenset()))
    )
    errno = document.get("defaultErrnoRet")
    return Seccomp(
        document.need("defaultAction").string(),
        errno.integer() if errno else None,
        tuple(f"SCMP_ARCH_{_OCI_NAMES[abi]}" for abi in _FAMILIES.get(machine, ())),
        tuple(rules),
    )


def _holds(rule: Node, capabilities: frozenset[str], arches: frozenset[str]) -> bool:
    """Whether a rule's ``includes`` and ``excludes`` let it in. Kernels before 4.8 are not supported."""

    def words(group: Node, key: str) -> frozenset[str]:
        member = group.get(key)
        return frozenset(member.strings()) if member else frozenset()

    includes = rule.get("includes")
    if includes:
        wanted_arches = words(includes, "arches")
        if (wanted_arches and not wanted_arches & arches) or not words(includes, "caps") <= capabilities:
            return False
    excludes = rule.get("excludes")
    return not excludes or not (words(excludes, "arches") & arches or words(excludes, "caps") & capabilities)


_ARCHITECTURES: Final = frozenset(
    ("X86", "X86_64", "X32", "ARM", "AARCH64", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32",
     "PPC", "PPC64", "PPC64LE", "S390", "S390X", "PARISC", "PARISC64", "RISCV64", "LOONGARCH64", "M68K", "SH", "SHEB")
)  # fmt: skip
"""All that the specification knows; those of other machines say nothing here."""


def compile_filter(seccomp: Seccomp, machine: str) -> bytes:
    """The program for ``machine`` (as ``uname -m`` says) and the architectures that the filter names.

    As runc does, system calls newer than every call that the filter names give ENOSYS, so
    that programs fall back; calls of other architectures kill the process. Names that an
    architecture does not have are skipped. Raises InvalidSpec.
    """
    if seccomp.default_action == _NOTIFY or any(
        rule.action == _NOTIFY and "sendmsg" in rule.names for rule in seccomp.rules
    ):  # the process hands its listener over by sendmsg: nobody could answer that one
        raise InvalidSpec("linux.seccomp", f"{_NOTIFY} is possible neither by default nor for sendmsg")
    if machine not in _FAMILIES:
        raise InvalidSpec("linux.seccomp", f"no system call table for machine {machine}")
    named = {name.removeprefix("SCMP_ARCH_") for name in seccomp.architectures}
    if unknown := named - _ARCHITECTURES:
        raise InvalidSpec("linux.seccomp.architectures", f"SCMP_ARCH_{min(unknown)} is not an architecture")
    abis = [abi for abi in _FAMILIES[machine] if abi == machine or _OCI_NAMES[abi] in named]
    trees = {abi: _tree(_ranges(seccomp, abi)) for abi in abis}
    if "x32" in trees:  # shares the audit number of x86_64, and differs by a bit of the call number
        x32 = trees.pop("x32")
        trees["x86_64"] = _jump_unless(_JUMP_GREATER_EQUAL, _X32_BIT, x32) + trees["x86_64"]
    elif "x86_64" in trees:
        trees["x86_64"] = _jump_unless(_JUMP_GREATER_EQUAL, _X32_BIT, [_return(_ERRNO | _ENOSYS)]) + trees["x86_64"]
    program: list[Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    for abi, tree in trees.items():
        program += _jump_unless(_JUMP_EQUAL, _AUDIT[abi], [(_LOAD, 0, 0, _SYSCALL_NUMBER), *tree])
    program.append(_return(_KILL_PROCESS))
    return b"".join(pack("<HBBI", *instruction) for instruction in program)


_LOAD_FLAGS: Final = {"SECCOMP_FILTER_FLAG_TSYNC": 0, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
               "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0}  # fmt: skip
"""TSYNC has nothing to do in a process of one thread; a listener waits killably wherever the kernel can."""


def load_flags(seccomp: Seccomp) -> int:
    """For seccomp(2). Raises InvalidSpec."""
    for name in seccomp.flags:
        if name not in _LOAD_FLAGS:
            raise InvalidSpec("linux.seccomp.flags", f"{name!r} is not supported")
    return sum(_LOAD_FLAGS[name] for name in set(seccomp.flags))


def notifies(seccomp: Seccomp) -> bool:
    """Whether the filter has a listener."""
    return any(rule.action == _NOTIFY for rule in seccomp.rules)


def known_actions() -> list[str]:
    return sorted(_ACTIONS)


def known_operators() -> list[str]:
    return [f"SCMP_CMP_{name}" for name in ("EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE")]


def known_architectures() -> list[str]:
    return sorted(f"SCMP_ARCH_{name}" for name in _OCI_NAMES.values())


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What happens to a range of numbers: each condition with its action, then the last resort."""

    conditions: tuple[tuple[tuple[SeccompArgument, ...], int], ...]
    otherwise: int
    narrow: bool = False


@dataclass(frozen=True, slots=True)
class _Range:
    """The calls numbered from ``first`` up to the next range."""

    first: int
    verdict: _Verdict


@cache
def _numbers() -> dict[str, dict[str, int]]:
    tables: dict[str, dict[str, int]] = json.loads((_HERE / "syscalls.json").read_bytes())
    return tables


def _ranges(seccomp: Seccomp, abi: str) -> list[_Range]:
    """Neighbouring calls with the same verdict as one range, from zero up."""
    default = _action(seccomp.default_action, seccomp.default_errno)
    verdicts = _verdicts(seccomp.rules, default, abi)
    beyond = _ERRNO | _ENOSYS if seccomp.default_action == "SCMP_ACT_ERRNO" else default
    ranges: list[_Range] = []

    def add(first: int, verdict: _Verdict) -> None:
        if not ranges or ranges[-1].verdict != verdict:
            ranges.append(_Range(first, verdict))

    following = 0
    for number in sorted(verdicts):
        if number != following:
            add(following, _Verdict((), default))
        add(number, verdicts[number])
        following = number + 1
    add(following, _Verdict((), beyond))
    return ranges


def _verdicts(rules: Sequence[SeccompRule], default: int, abi: str) -> dict[int, _Verdict]:
    """Per call number. A rule without conditions beats all that have some; the first one wins."""
    numbers = _numbers()[abi]
    always: dict[int, int] = {}
    sometimes: dict[int, list[tuple[tuple[SeccompArgument, ...], int]]] = {}
    for rule in rules:
        action = _action(rule.action, rule.errno)
        for number in (numbers[name] for name in rule.names if name in numbers):
            if rule.args:
                sometimes.setdefault(number, []).extend((args, action) for args in _alternatives(rule.args))
            else:
                always.setdefault(number, action)
    conditional = {n: _Verdict(tuple(conditions), default, abi in _NARROW) for n, conditions in sometimes.items()}
    return conditional | {number: _Verdict((), action) for number, action in always.items()}


def _alternatives(args: tuple[SeccompArgument, ...]) -> list[tuple[SeccompArgument, ...]]:
    """All together, or each by itself when one argument is compared twice (as runc reads it)."""
    indexes = [arg.index for arg in args]
    return [args] if len(set(indexes)) == len(indexes) else [(arg,) for arg in args]


def _action(name: str, errno: int | None) -> int:
    if name not in _ACTIONS:
        raise InvalidSpec("linux.seccomp", f"action {name!r} is not supported")
    return _ACTIONS[name] | ((_EPERM if errno is None else errno & 0xFFFF) if name in _TAKES_ERRNO else 0)


# --- instructions -----------------------------------------------------------------------


def _return(value: int) -> Instruction:
    return (_RETURN, 0, 0, value)


def _jump_unless(code: int, value: int, body: list[Instruction]) -> list[Instruction]:
    """``body`` runs when the comparison holds; otherwise what follows it."""
    if len(body) <= _FARTHEST:
        return [(code, 0, len(body), value), *body]
    return [(code, 1, 0, value), (_JUMP, 0, 0, len(body)), *body]


def _tree(ranges: Sequence[_Range]) -> list[Instruction]:
    """Bisection over the ranges; the accumulator holds the call number on entry."""
    if len(ranges) == 1:
        return list(_leaf(ranges[0].verdict))
    middle = len(ranges) // 2
    upper = _tree(ranges[middle:])
    return _jump_unless(_JUMP_GREATER_EQUAL, ranges[middle].first, upper) + _tree(ranges[:middle])


def _leaf(verdict: _Verdict) -> Iterator[Instruction]:
    for args, action in verdict.conditions:
        yield from _condition(args, action, narrow=verdict.narrow)
    yield _return(verdict.otherwise)


_FAIL, _NEXT = -1, 0
"""Jump targets of one comparison, before the length of the whole condition is known."""


def _condition(args: Sequence[SeccompArgument], action: int, *, narrow: bool) -> list[Instruction]:
    """Return ``action`` when every comparison holds, else go on behind the last instruction."""
    body = [step for arg in args for step in _comparison(arg, narrow=narrow)] + [_return(action)]

    def distance(target: int, position: int) -> int:
        return len(body) - position - 1 if target == _FAIL else target

    return [(code, distance(yes, at), distance(no, at), value) for at, (code, yes, no, value) in enumerate(body)]


def _comparison(arg: SeccompArgument, *, narrow: bool) -> list[Instruction]:
    """One comparison of 64 bits by halves (or of the lower 32); jumps are relative or _FAIL."""
    low_at = _FIRST_ARGUMENT + 8 * arg.index
    load_low: Instruction = (_LOAD, 0, 0, low_at)
    load_high: Instruction = (_LOAD, 0, 0, low_at + 4)
    high, low = arg.value >> 32, arg.value & 0xFFFFFFFF
    match arg.op:
        case "SCMP_CMP_EQ":
            upper = [load_high, (_JUMP_EQUAL, _NEXT, _FAIL, high)]
            return [*([] if narrow else upper), load_low, (_JUMP_EQUAL, _NEXT, _FAIL, low)]
        case "SCMP_CMP_NE":
            upper = [load_high, (_JUMP_EQUAL, _NEXT, 2, high)]
            return [*([] if narrow else upper), load_low, (_JUMP_EQUAL, _FAIL, _NEXT, low)]
        case "SCMP_CMP_MASKED_EQ":
            wanted_high, wanted_low = arg.value_two >> 32, arg.value_two & 0xFFFFFFFF
            upper = [load_high, (_AND, 0, 0, high), (_JUMP_EQUAL, _NEXT, _FAIL, wanted_high)]
            lower = [load_low, (_AND, 0, 0, low), (_JUMP_EQUAL, _NEXT, _FAIL, wanted_low)]
            return [*([] if narrow else upper), *lower]
        case "SCMP_CMP_GT" | "SCMP_CMP_GE":
            code = _JUMP_GREATER if arg.op == "SCMP_CMP_GT" else _JUMP_GREATER_EQUAL
            upper = [load_high, (_JUMP_GREATER, 3, _NEXT, high), (_JUMP_EQUAL, _NEXT, _FAIL, high)]
            return [*([] if narrow else upper), load_low, (code, _NEXT, _FAIL, low)]
        case "SCMP_CMP_LT" | "SCMP_CMP_LE":
            code = _JUMP_GREATER_EQUAL if arg.op == "SCMP_CMP_LT" else _JUMP_GREATER
            upper = [load_high, (_JUMP_GREATER, _FAIL, _NEXT, high), (_JUMP_EQUAL, _NEXT, 2, high)]
            return [*([] if narrow else upper), load_low, (code, _FAIL, _NEXT, low)]
        case _:
            raise InvalidSpec("linux.seccomp", f"comparison {arg.op!r} is not supported")
