"""Interpretation: nodes to typed instructions, words still as written.

Spec: dockerfile.md 1.3 to 1.6.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypedDict

from builder.dockerfile import arguments
from builder.dockerfile.blanks import SPACE, SPACES
from builder.dockerfile.flags import FlagKind, Flags, read_flags
from builder.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    From,
    Healthcheck,
    InlineFile,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    ShellForm,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from builder.dockerfile.parse import Document, Node, heredoc_operator, parse, syntax_error
from builder.dockerfile.words import quoted
from image.config import Healthcheck as HealthcheckConfig
from image.errors import DockerfileError
from image.span import Span

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_FORBIDDEN_TRIGGERS = frozenset({"MAINTAINER", "FROM"})
_MIN_INTERVAL_NS = 1_000_000
_BOOLEAN, _TEXT, _REPEATED = FlagKind.BOOLEAN, FlagKind.TEXT, FlagKind.REPEATED


def instructions(document: Document) -> tuple[Instruction, ...]:
    """The instructions of a document, in order.

    Raises DockerfileError at the first that breaks the rules of its keyword.
    """
    return tuple(interpret(node, document.escape) for node in document.nodes)


def interpret(node: Node, escape: str) -> Instruction:
    """One instruction. Raises DockerfileError with the node's span."""
    entry = _READERS.get(node.keyword.lower())
    if entry is None:
        names = (keyword.upper() for keyword in _READERS)
        suggestion = arguments.did_you_mean(node.keyword, names, ignore_case=True)
        raise syntax_error(f"unknown instruction: {node.keyword}{suggestion}", node.span)
    read, kinds = entry
    try:
        return read(_Request(node, read_flags(node.flags, kinds), escape))
    except ValueError as error:
        raise syntax_error(str(error), node.span) from None
    except DockerfileError as error:
        raise error if error.span else syntax_error(str(error), node.span) from None


def interpret_trigger(expression: str, span: Span) -> Instruction:
    """The instruction of an ONBUILD expression that came with a base image.

    ``span`` is the FROM that brought it in. Raises DockerfileError.
    """
    try:
        document = parse(expression.encode("utf-8", "surrogateescape"), "ONBUILD")
        if len(document.nodes) != 1:
            raise DockerfileError("onbuild trigger should be a single expression")
        node = document.nodes[0]
        _reject_trigger(node.keyword)
        return interpret(_at(node, span), document.escape)
    except (DockerfileError, ValueError) as error:
        raise DockerfileError(f"ONBUILD {expression}: {error}", span=span) from None


def _at(node: Node, span: Span) -> Node:
    return Node(node.keyword, node.flags, node.rest, node.line, span, node.heredocs)


class _Request(NamedTuple):
    """What a reader works on."""

    node: Node
    flags: Flags
    escape: str

    @property
    def rest(self) -> str:
        return self.node.rest


class _Source(TypedDict):
    span: Span
    original: str
    keyword: str
    comments: tuple[str, ...]


def _source(request: _Request) -> _Source:
    node = request.node
    return _Source(span=node.span, original=node.line.strip(SPACES), keyword=node.keyword, comments=node.comments)


def _from(request: _Request) -> From:
    words = arguments.split_blanks(request.rest)
    platform = request.flags.text("platform")
    if len(words) == 1:
        return From(words[0], platform=platform, **_source(request))
    if len(words) != 3 or words[1].lower() != "as":
        raise ValueError("FROM requires either one or three arguments")
    name = words[2].lower()
    if not _STAGE_NAME.match(name):
        problem = f"invalid name for build stage: {quoted(words[2])}"
        raise ValueError(f"{problem}, name can't start with a number or contain symbols")
    return From(words[0], name, platform, words[2], words[1], **_source(request))


def _run(request: _Request) -> Run:
    network = request.flags.text("network") or "default"
    if network not in {"default", "none", "host"}:
        raise ValueError(f"invalid network mode {quoted(network)}")
    security = request.flags.text("security") or "sandbox"
    if security not in {"sandbox", "insecure"}:
        raise ValueError(f"security {quoted(security)} is not valid")
    mounts = request.flags.texts("mount")
    if mounts:
        from builder.dockerfile.mounts import check_mount_syntax

        for mount in mounts:
            check_mount_syntax(mount)
    return Run(
        _command(request),
        request.node.heredocs,
        mounts,
        network,
        security,
        request.flags.texts("device"),
        **_source(request),
    )


def _command(request: _Request) -> Command:
    words = arguments.json_strings(request.rest)
    return ShellForm(request.rest) if words is None else ExecForm(words)


def _copy(request: _Request) -> Copy:
    sources, inline, destination = _sources(request, "COPY")
    from_ = request.flags.text("from")
    if re.search(r"\$.", from_):
        raise ValueError("'from' doesn't support variable expansion, define alias stage instead")
    return Copy(
        sources,
        destination,
        inline,
        from_,
        request.flags.text("chown"),
        request.flags.text("chmod"),
        request.flags.boolean("link") or False,
        request.flags.boolean("parents") or False,
        request.flags.texts("exclude"),
        **_source(request),
    )


def _add(request: _Request) -> Add:
    sources, inline, destination = _sources(request, "ADD")
    return Add(
        sources,
        destination,
        inline,
        request.flags.text("chown"),
        request.flags.text("chmod"),
        request.flags.boolean("link") or False,
        request.flags.texts("exclude"),
        request.flags.text("checksum"),
        request.flags.boolean("keep-git-dir"),
        request.flags.boolean("unpack"),
        **_source(request),
    )


def _sources(request: _Request, command: str) -> tuple[tuple[str, ...], tuple[InlineFile, ...], str]:
    """Source paths, inline files and the destination."""
    words = arguments.json_strings(request.rest)
    if words is None:
        words = arguments.split_blanks(request.rest)
    if len(words) < 2:
        problem = f"{command} requires at least two arguments, but only one was provided"
        raise ValueError(f"{problem}. Destination could not be determined")
    *sources, destination = words
    if not request.node.heredocs:
        return tuple(sources), (), destination
    if heredoc_operator(destination):
        raise ValueError(f"{command} cannot accept a heredoc as a destination")
    paths = tuple(word for word in sources if heredoc_operator(word) is None)
    files = tuple(InlineFile(heredoc.name, heredoc.body, heredoc.expand) for heredoc in request.node.heredocs)
    return paths, files, destination


def _env(request: _Request) -> Env:
    return Env(*arguments.parse_pairs(request.rest, "ENV", request.escape), **_source(request))


def _label(request: _Request) -> Label:
    return Label(*arguments.parse_pairs(request.rest, "LABEL", request.escape), **_source(request))


def _arg(request: _Request) -> Arg:
    words = arguments.split_quoted(request.rest, request.escape)
    if not words:
        raise ValueError("ARG requires at least one argument")
    args: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, default = word.partition("=")
        if not name:
            raise ValueError("ARG names can not be blank")
        args.append((name, default if equals else None))
    return Arg(tuple(args), **_source(request))


def _one(request: _Request, command: str) -> str:
    if not request.rest:
        raise ValueError(f"{command} requires exactly one argument")
    return request.rest


def _workdir(request: _Request) -> Workdir:
    return Workdir(_one(request, "WORKDIR"), **_source(request))


def _user(request: _Request) -> User:
    return User(_one(request, "USER"), **_source(request))


def _stopsignal(request: _Request) -> Stopsignal:
    return Stopsignal(_one(request, "STOPSIGNAL"), **_source(request))


def _maintainer(request: _Request) -> Maintainer:
    return Maintainer(_one(request, "MAINTAINER"), **_source(request))


def _cmd(request: _Request) -> Cmd:
    return Cmd(_command(request), **_source(request))


def _entrypoint(request: _Request) -> Entrypoint:
    return Entrypoint(_command(request), **_source(request))


def _shell(request: _Request) -> Shell:
    args = arguments.json_strings(request.rest)
    if not request.rest or args == ():
        raise ValueError("SHELL requires at least one argument")
    if args is None:
        raise ValueError("SHELL requires the arguments to be in JSON form")
    return Shell(args, **_source(request))


def _expose(request: _Request) -> Expose:
    ports = arguments.split_blanks(request.rest)
    if not ports:
        raise ValueError("EXPOSE requires at least one argument")
    return Expose(tuple(sorted(ports)), **_source(request))


def _volume(request: _Request) -> Volume:
    words = arguments.json_strings(request.rest)
    if words is None:
        words = arguments.split_blanks(request.rest)
    if not words:
        raise ValueError("VOLUME requires at least one argument")
    paths = tuple(word.strip(SPACES) for word in words)
    if not all(paths):
        raise ValueError("VOLUME specified can not be an empty string")
    return Volume(paths, **_source(request))


def _healthcheck(request: _Request) -> Healthcheck:
    kind, *words = re.split(f"{SPACE}+", request.rest, maxsplit=1)
    rest = words[0] if words else ""
    if not kind:
        raise ValueError("HEALTHCHECK requires at least one argument")
    match kind.upper():
        case "NONE":
            if rest:
                raise ValueError("HEALTHCHECK NONE takes no arguments")
            return Healthcheck(HealthcheckConfig(("NONE",)), **_source(request))
        case "CMD":
            return Healthcheck(_health_config(rest, request.flags), **_source(request))
        case unknown:
            raise ValueError(f"Unknown type {quoted(unknown)} in HEALTHCHECK (try CMD)")


def _health_config(command: str, flags: Flags) -> HealthcheckConfig:
    words = arguments.json_strings(command)
    test = ("CMD-SHELL", command) if words is None else ("CMD", *words)
    if not command or words == ():
        raise ValueError("Missing command after HEALTHCHECK CMD")
    return HealthcheckConfig(
        test,
        _interval_ns(flags, "interval"),
        _interval_ns(flags, "timeout"),
        _interval_ns(flags, "start-period"),
        _interval_ns(flags, "start-interval"),
        _retries(flags.text("retries")),
    )


def _interval_ns(flags: Flags, name: str) -> int:
    text = flags.text(name)
    duration_ns = arguments.parse_duration_ns(text) if text else 0
    if duration_ns and duration_ns < _MIN_INTERVAL_NS:
        raise ValueError(f"Interval {quoted(name)} cannot be less than 1ms")
    return duration_ns


def _retries(text: str) -> int:
    if not text:
        return 0
    if not re.match(r"[+-]?[0-9]{1,10}\Z", text) or not -(2**31) <= int(text) < 2**31:
        raise ValueError(f"--retries must be a whole number, not {quoted(text)}")
    if int(text) < 0:
        raise ValueError(f"--retries cannot be negative ({int(text)})")
    return int(text)


def _onbuild(request: _Request) -> Onbuild:
    if not request.rest:
        raise ValueError("ONBUILD requires at least one argument")
    keyword, words, rest = arguments.split_keyword(request.rest)
    _reject_trigger(keyword)
    node = request.node
    trigger = interpret(Node(keyword, words, rest, node.rest, node.span, node.heredocs), request.escape)
    expression = node.line.lstrip(SPACES)[len(node.keyword) :].lstrip(SPACES)
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in node.heredocs)
    return Onbuild(expression + bodies, trigger, **_source(request))


def _reject_trigger(keyword: str) -> None:
    name = keyword.upper()
    if name == "ONBUILD":
        raise ValueError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if name in _FORBIDDEN_TRIGGERS:
        raise ValueError(f"{name} isn't allowed as an ONBUILD trigger")


_NO_FLAGS: Mapping[str, FlagKind] = {}
_FROM_FLAGS = {"platform": _TEXT}
_RUN_FLAGS = {"mount": _REPEATED, "network": _TEXT, "security": _TEXT, "device": _REPEATED}
_FILE_FLAGS = {"chown": _TEXT, "chmod": _TEXT, "link": _BOOLEAN, "exclude": _REPEATED}
_COPY_FLAGS = {**_FILE_FLAGS, "from": _TEXT, "parents": _BOOLEAN}
_ADD_FLAGS = {**_FILE_FLAGS, "checksum": _TEXT, "keep-git-dir": _BOOLEAN, "unpack": _BOOLEAN}
_HEALTH_FLAGS = dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), _TEXT)

_Reader = Callable[[_Request], Instruction]
_READERS: dict[str, tuple[_Reader, Mapping[str, FlagKind]]] = {
    "add": (_add, _ADD_FLAGS),
    "arg": (_arg, _NO_FLAGS),
    "cmd": (_cmd, _NO_FLAGS),
    "copy": (_copy, _COPY_FLAGS),
    "entrypoint": (_entrypoint, _NO_FLAGS),
    "env": (_env, _NO_FLAGS),
    "expose": (_expose, _NO_FLAGS),
    "from": (_from, _FROM_FLAGS),
    "healthcheck": (_healthcheck, _HEALTH_FLAGS),
    "label": (_label, _NO_FLAGS),
    "maintainer": (_maintainer, _NO_FLAGS),
    "onbuild": (_onbuild, _NO_FLAGS),
    "run": (_run, _RUN_FLAGS),
    "shell": (_shell, _NO_FLAGS),
    "stopsignal": (_stopsignal, _NO_FLAGS),
    "user": (_user, _NO_FLAGS),
    "volume": (_volume, _NO_FLAGS),
    "workdir": (_workdir, _NO_FLAGS),
}
