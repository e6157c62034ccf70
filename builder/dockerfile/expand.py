"""Expansion: an instruction and the environment of the moment → the instruction to carry out.

One snapshot of the environment serves a whole instruction: in ``ENV a=1 b=$a`` the second
sees the old ``a``. Instructions whose text belongs to a shell come back unchanged.

Spec: dockerfile.md 1.1, rows "Expanded", "Not expanded" and "Timing"; 1.3 for ports and signals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from builder.dockerfile.instructions import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    From,
    InlineFile,
    Instruction,
    Label,
    Run,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from builder.dockerfile.words import Usage, expand, expand_heredoc, expand_words, quoted
from image.errors import DockerfileError
from image.value import dataclass, replace

if TYPE_CHECKING:
    from builder.dockerfile.mounts import Mount

_SIGNAL = (
    r"(?:SIG)?(?:ABRT|ALRM|BUS|CHLD|CLD|CONT|FPE|HUP|ILL|INT|IO|IOT|KILL|PIPE|POLL|PROF|PWR|QUIT|SEGV|STKFLT|STOP|SYS"
    r"|TERM|TRAP|TSTP|TTIN|TTOU|URG|USR1|USR2|VTALRM|WINCH|XCPU|XFSZ|RTMIN(?:\+(?:[1-9]|1[0-5]))?"
    r"|RTMAX(?:-(?:[1-9]|1[0-4]))?)\Z|[+-]?0*[1-9][0-9]{0,8}\Z"
)

_FileCopy = TypeVar("_FileCopy", Copy, Add)


@dataclass(frozen=True, slots=True)
class Environment:
    """What words are expanded with. ``usage``, if given, learns which variables were asked for."""

    variables: Mapping[str, str]
    escape: str = "\\"
    usage: Usage | None = None

    def word(self, word: str) -> str:
        return expand(word, self.variables, self.escape, self.usage)

    def words(self, text: str) -> list[str]:
        return expand_words(text, self.variables, self.escape, self.usage)

    def all(self, words: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.word(word) for word in words)


def expanded(instruction: Instruction, env: Environment) -> Instruction:
    """A copy of ``instruction`` without variables.

    ``Expose.ports`` become ``80/tcp`` and the like; ``Stopsignal.signal`` is a known one. ARG
    defaults are left alone, because an overridden default is never evaluated: see
    ``arg_default``. RUN's mounts are parsed by ``run_mounts``.

    Raises DockerfileError at the instruction.
    """
    try:
        return _expanded(instruction, env)
    except DockerfileError as error:
        error.span = error.span or instruction.span
        raise


def arg_default(arg: Arg, default: str, env: Environment) -> str:
    """The default of one of ``arg``'s names. Raises DockerfileError at the instruction."""
    try:
        return env.word(default)
    except DockerfileError as error:
        error.span = arg.span
        raise


def run_mounts(run: Run, env: Environment) -> tuple[Mount, ...]:
    """The mounts of a RUN. Raises DockerfileError at the instruction."""
    from builder.dockerfile.mounts import parse_mount

    try:
        return tuple(parse_mount(text, env.word) for text in run.mounts)
    except DockerfileError as error:
        error.span = error.span or run.span
        raise


def _expanded(instruction: Instruction, env: Environment) -> Instruction:
    match instruction:
        case From():
            return replace(instruction, image=env.word(instruction.image), platform=env.word(instruction.platform))
        case Copy():
            return _expanded_files(instruction, env)
        case Add():
            return replace(_expanded_files(instruction, env), checksum=env.word(instruction.checksum))
        case Env() | Label():
            return replace(instruction, pairs=_pairs(instruction.pairs, env))
        case Workdir():
            return replace(instruction, path=env.word(instruction.path))
        case User():
            return replace(instruction, user=env.word(instruction.user))
        case Volume():
            return replace(instruction, paths=_volumes(env.all(instruction.paths)))
        case Stopsignal():
            return replace(instruction, signal=_signal(env.word(instruction.signal)))
        case Expose():
            words = [word for port in instruction.ports for word in env.words(port)]
            return replace(instruction, ports=tuple(port for word in words for port in parse_ports(word)))
        case _:
            return instruction


def _expanded_files(files: _FileCopy, env: Environment) -> _FileCopy:
    return replace(
        files,
        sources=env.all(files.sources),
        destination=env.word(files.destination),
        chown=env.word(files.chown),
        chmod=env.word(files.chmod),
        inline=tuple(_expanded_file(file, env) for file in files.inline),
    )


def _expanded_file(file: InlineFile, env: Environment) -> InlineFile:
    if not file.expand:
        return file
    return InlineFile(file.name, expand_heredoc(file.text, env.variables, env.usage), False)


def _pairs(pairs: tuple[tuple[str, str], ...], env: Environment) -> tuple[tuple[str, str], ...]:
    return tuple((env.word(name), env.word(value)) for name, value in pairs)


def _volumes(paths: tuple[str, ...]) -> tuple[str, ...]:
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return paths


def _signal(text: str) -> str:
    if not re.match(_SIGNAL, text, re.IGNORECASE):
        raise DockerfileError(f"invalid signal: {text}")
    return text


def parse_ports(spec: str) -> tuple[str, ...]:
    """The ports of one EXPOSE word, as ``80/tcp``; a range gives several.

    ``ip:host:container`` still parses, as in docker; only the container's part counts.
    Raises DockerfileError.
    """
    *outside, inside = spec.split(":")
    port, _, protocol = inside.partition("/")
    protocol = protocol.lower() or "tcp"
    if not port:
        raise DockerfileError(f"invalid port: {quoted(spec)}: no port specified: {inside}<empty>")
    if protocol not in {"tcp", "udp", "sctp"}:
        raise DockerfileError(f"invalid port: {quoted(spec)}: invalid proto: {protocol}")
    _check_address(":".join(outside[:-1]))
    start, end = _port_range(port, "containerPort")
    if outside and outside[-1]:
        host_start, host_end = _port_range(outside[-1], "hostPort")
        if end - start not in {0, host_end - host_start}:
            problem = f"invalid ranges specified for container and host Ports: {port} and {outside[-1]}"
            raise DockerfileError(problem)
    return tuple(f"{number}/{protocol}" for number in range(start, end + 1))


def _check_address(text: str) -> None:
    if not text:
        return
    import ipaddress

    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise DockerfileError(f"invalid IP address: {text}") from None


def _port_range(text: str, what: str) -> tuple[int, int]:
    found = re.match(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z", text)
    if found is not None:
        start, end = int(found.group(1)), int(found.group(2) or found.group(1))
        if start <= end <= 65535:
            return start, end
    raise DockerfileError(f"invalid {what}: {text}")
