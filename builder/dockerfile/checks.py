"""Build checks: warnings about what is legal but doubtful.

Names and messages are BuildKit's. Most checks need the file alone and are done here by
``run_checks``. Three need what only a build knows; their warnings are made by
``undefined_variables``, ``base_image_platform`` and, if rules are given, ``run_checks``.

Spec: dockerfile.md 3.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from builder.dockerfile.arguments import did_you_mean, parse_bool
from builder.dockerfile.glob import clean
from builder.dockerfile.ignore import NOTHING, IgnoreRules
from builder.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Shell,
    ShellForm,
    Workdir,
)
from builder.dockerfile.parse import Document
from builder.dockerfile.rules import (
    CONSISTENT_INSTRUCTION_CASING,
    COPY_IGNORED_FILE,
    DUPLICATE_STAGE_NAME,
    EXPOSE_INVALID_FORMAT,
    EXPOSE_PROTO_CASING,
    FROM_AS_CASING,
    FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    INVALID_BASE_IMAGE_PLATFORM,
    INVALID_DEFAULT_ARG_IN_FROM,
    INVALID_DEFINITION_DESCRIPTION,
    JSON_ARGS_RECOMMENDED,
    LEGACY_KEY_VALUE_FORMAT,
    MAINTAINER_DEPRECATED,
    MULTIPLE_INSTRUCTIONS_DISALLOWED,
    NO_EMPTY_CONTINUATION,
    REDUNDANT_TARGET_PLATFORM,
    RESERVED_STAGE_NAME,
    SECRETS_USED_IN_ARG_OR_ENV,
    STAGE_NAME_CASING,
    UNDEFINED_ARG_IN_FROM,
    UNDEFINED_VAR,
    WORKDIR_RELATIVE_PATH,
    Rule,
)
from builder.dockerfile.stages import Stage, Stages
from builder.dockerfile.words import Usage, expand, quoted
from image.errors import DockerfileError, InvalidInput, InvalidPlatform, InvalidReference
from image.platform import Platform
from image.reference import Reference
from image.span import Span
from image.value import dataclass

PREDEFINED_ARGS = frozenset(
    {f"{side}{what}" for side in ("BUILD", "TARGET") for what in ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")}
    | {"TARGETSTAGE"}
)
"""Global ARGs that need no declaration."""


_RESERVED = frozenset({"context", "scratch"})
_NOT_VARIABLES = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
_SENSITIVE = r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)"
_HARMLESS = r"(?:_|^)(?:public|file|version)(?:_|$)"
_URLS = ("http://", "https://", "git@", "git://", "ssh://")


@dataclass(frozen=True, slots=True)
class CheckWarning:
    """What a check found."""

    rule: Rule
    message: str
    span: Span

    def __str__(self) -> str:
        """The line that ``docker build`` prints."""
        return f"{self.rule.name}: {self.message} (line {self.span.start})"


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """Which warnings are wanted, and whether one of them fails the build."""

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    def wants(self, rule: Rule) -> bool:
        if rule.experimental:
            return self.experimental_all or rule.name in self.experimental
        return not self.skip_all and rule.name not in self.skip


def parse_check_options(text: str) -> CheckOptions:
    """``skip=A,B;error=true;experimental=all``, as ``# check=`` and BUILDKIT_DOCKERFILE_CHECK have it.

    Raises InvalidInput.
    """
    given: dict[str, str] = {}
    for option in text.split(";") if text.strip() else ():
        name, equals, value = option.partition("=")
        name = name.strip()
        if not equals or name not in {"skip", "experimental", "error"}:
            raise InvalidInput(f"invalid check option {quoted(name if equals else option)}")
        given[name] = value.strip()
    error = parse_bool(given.get("error", "false"))
    if error is None:
        raise InvalidInput(f"failed to parse check option {quoted('error=' + given['error'])}: want true or false")
    skip, experimental = _names(given.get("skip", "")), _names(given.get("experimental", ""))
    return CheckOptions(skip, skip == {"all"}, experimental, experimental == {"all"}, error)


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",")) - {""}


def run_checks(
    document: Document,
    instructions: tuple[Instruction, ...],
    stages: Stages,
    *,
    options: CheckOptions | None = None,
    ignore: IgnoreRules = NOTHING,
    reachable: Collection[int] | None = None,
) -> tuple[CheckWarning, ...]:
    """The warnings about a file, by line.

    ``options`` override the file's own ``# check=``. ``reachable`` are the indexes of the
    stages to look at, None for all. Raises InvalidInput for a bad ``# check=``.
    """
    if options is None:
        options = parse_check_options(document.directive("check"))
    warnings = [*_of_file(document, stages), *_of_from(stages)]
    for stage in stages.stages:
        if reachable is None or stage.index in reachable:
            warnings += _of_stage(stages, stage, ignore)
    for instruction in instructions:
        warnings += _description(instruction)
    return wanted_warnings(warnings, instructions, options)


def wanted_warnings(
    warnings: Iterable[CheckWarning], instructions: Iterable[Instruction], options: CheckOptions
) -> tuple[CheckWarning, ...]:
    """Those that neither ``options`` nor a ``# check=skip=…`` right above the instruction silence."""
    skipped = {instruction.span.start: _skipped_here(instruction) for instruction in instructions}
    kept = (
        warning
        for warning in warnings
        if options.wants(warning.rule) and not _silenced(warning.rule, skipped.get(warning.span.start, frozenset()))
    )
    return tuple(sorted(kept, key=lambda warning: (warning.span.start, warning.message)))


def _skipped_here(instruction: Instruction) -> frozenset[str]:
    found = (re.match(r"check\s*=\s*skip\s*=(.*)\Z", comment) for comment in instruction.comments)
    return frozenset(name for match in found if match for name in _names(match.group(1)))


def _silenced(rule: Rule, names: frozenset[str]) -> bool:
    return rule.name in names or "all" in names


def undefined_variables(span: Span, unset: Iterable[str], known: Collection[str]) -> tuple[CheckWarning, ...]:
    """UndefinedVar for the unset variables of one instruction; ``known`` are the defined names."""
    return tuple(
        CheckWarning(UNDEFINED_VAR, f"Usage of undefined variable '${name}'{_suggested(name, known)}", span)
        for name in sorted(unset)
        if name not in _NOT_VARIABLES
    )


def _suggested(name: str, known: Collection[str]) -> str:
    return did_you_mean(name, known).replace("(did you mean ", "(did you mean $")


def base_image_platform(origin: From, expected: Platform, actual: Platform) -> tuple[CheckWarning, ...]:
    """InvalidBaseImagePlatform, if the image found is for another platform."""
    if (expected.os, expected.architecture) == (actual.os, actual.architecture):
        return ()
    wanted = f"expected {quoted(str(expected))} for current build"
    message = f"Base image {origin.image} was pulled with platform {quoted(str(actual))}, {wanted}"
    return (CheckWarning(INVALID_BASE_IMAGE_PLATFORM, message, origin.span),)


def _of_file(document: Document, stages: Stages) -> Iterator[CheckWarning]:
    for span in document.empty_continuations:
        yield CheckWarning(NO_EMPTY_CONTINUATION, "Empty continuation line", span)
    instructions = [
        instruction for stage in stages.stages for instruction in (stage.origin, *stage.commands)
    ]  # global ARGs have no say in the majority, as in BuildKit
    lower = sum(instruction.keyword.islower() for instruction in instructions)
    upper = sum(instruction.keyword.isupper() for instruction in instructions)
    casing = "lowercase" if lower > upper else "uppercase"
    for instruction in instructions:
        right = instruction.keyword.lower() if lower > upper else instruction.keyword.upper()
        if instruction.keyword != right:
            message = f"Command '{instruction.keyword}' should match the case of the command majority ({casing})"
            yield CheckWarning(CONSISTENT_INSTRUCTION_CASING, message, instruction.span)


def _of_from(stages: Stages) -> Iterator[CheckWarning]:
    """Everything about FROM."""
    seen: set[str] = set()
    declared = {name for arg in stages.global_args for name, _ in arg.args} | PREDEFINED_ARGS
    defaults = _default_args(stages)
    for stage in stages.stages:
        origin = stage.origin
        yield from _stage_name(origin, seen)
        seen.add(origin.name)
        yield from _platform(origin)
        yield from _undeclared(origin, declared)
        if defaults is not None:
            yield from _default_image(origin, defaults)


def _stage_name(origin: From, seen: set[str]) -> Iterator[CheckWarning]:
    if not origin.name:
        return
    if origin.written_name != origin.name:
        yield CheckWarning(STAGE_NAME_CASING, f"Stage name '{origin.written_name}' should be lowercase", origin.span)
    if _casings_differ(origin.keyword, origin.written_as):
        message = f"'{origin.written_as}' and '{origin.keyword}' keywords' casing do not match"
        yield CheckWarning(FROM_AS_CASING, message, origin.span)
    if origin.name in _RESERVED:
        message = f"Stage name should not use the same name as reserved stage {quoted(origin.name)}"
        yield CheckWarning(RESERVED_STAGE_NAME, message, origin.span)
    if origin.name in seen:
        message = f"Duplicate stage name {quoted(origin.name)}, stage names should be unique"
        yield CheckWarning(DUPLICATE_STAGE_NAME, message, origin.span)


def _casings_differ(keyword: str, other: str) -> bool:
    """False for a keyword of mixed case, which another check reports."""
    return (keyword.islower() and not other.islower()) or (keyword.isupper() and not other.isupper())


def _platform(origin: From) -> Iterator[CheckWarning]:
    platform = origin.platform
    if platform in {"$TARGETPLATFORM", "${TARGETPLATFORM}"}:
        message = f"Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
        yield CheckWarning(REDUNDANT_TARGET_PLATFORM, message, origin.span)
    if not platform or "$" in platform:
        return
    try:
        parsed = Platform.parse(platform, Platform("linux", "amd64"))
    except InvalidPlatform:
        return  # the build will say so
    if parsed.os not in origin.name and parsed.architecture not in origin.name:
        message = f"FROM --platform flag should not use constant value {quoted(platform)}"
        yield CheckWarning(FROM_PLATFORM_FLAG_CONST_DISALLOWED, message, origin.span)


def _undeclared(origin: From, declared: Collection[str]) -> Iterator[CheckWarning]:
    usage = Usage()
    try:
        for word in (origin.image, origin.platform):
            expand(word, {}, usage=usage)
    except DockerfileError:
        return
    for name in sorted(usage.unset - set(declared)):
        message = f"FROM argument '{name}' is not declared{did_you_mean(name, declared)}"
        yield CheckWarning(UNDEFINED_ARG_IN_FROM, message, origin.span)


def _default_args(stages: Stages) -> dict[str, str] | None:
    """The global ARGs as they are without any ``--build-arg``; None if they can't be evaluated."""
    env = dict.fromkeys(PREDEFINED_ARGS, "default")
    try:
        for arg in stages.global_args:
            env |= {name: expand(value, env) for name, value in arg.args if value is not None}
    except DockerfileError:
        return None
    return env


def _default_image(origin: From, env: dict[str, str]) -> Iterator[CheckWarning]:
    if "$" not in origin.image:
        return
    try:
        Reference.parse(expand(origin.image, env))
    except InvalidReference:
        message = f"Default value for ARG {origin.image} results in empty or invalid base image name"
        yield CheckWarning(INVALID_DEFAULT_ARG_IN_FROM, message, origin.span)
    except DockerfileError:
        return


def _of_stage(stages: Stages, stage: Stage, ignore: IgnoreRules) -> Iterator[CheckWarning]:
    yield from _repeated(stage)
    yield from _inheriting(stages, stage)
    for instruction in stage.commands:
        match instruction:
            case Maintainer():
                message = "Maintainer instruction is deprecated in favor of using label"
                yield CheckWarning(MAINTAINER_DEPRECATED, message, instruction.span)
            case Env() | Label():
                yield from _pairs(instruction)
            case Arg():
                yield from _secrets("ARG", [name for name, _ in instruction.args], instruction.span)
            case Expose():
                yield from _ports(instruction)
            case Copy() | Add():
                yield from _ignored(instruction, ignore)
            case _:
                pass


def _repeated(stage: Stage) -> Iterator[CheckWarning]:
    last: dict[type, Instruction] = {}
    for instruction in stage.commands:
        if isinstance(instruction, Cmd | Entrypoint | Healthcheck):
            earlier = last.get(type(instruction))
            if earlier is not None:
                message = f"Multiple {instruction.keyword} instructions should not be used in the same stage"
                message += " because only the last one will be used"
                yield CheckWarning(MULTIPLE_INSTRUCTIONS_DISALLOWED, message, earlier.span)
            last[type(instruction)] = instruction


def _inheriting(stages: Stages, stage: Stage) -> Iterator[CheckWarning]:
    """Checks that depend on what the stages below this one have set."""
    below = list(_bases(stages, stage))
    has_shell = any(isinstance(command, Shell) for base in below for command in base.commands)
    has_workdir = any(_absolute(command) for base in below for command in base.commands)
    for command in stage.commands:
        has_shell = has_shell or isinstance(command, Shell)
        has_workdir = has_workdir or _absolute(command)
        if isinstance(command, Cmd | Entrypoint) and isinstance(command.command, ShellForm) and not has_shell:
            message = f"JSON arguments recommended for {command.keyword}"
            message += " to prevent unintended behavior related to OS signals"
            yield CheckWarning(JSON_ARGS_RECOMMENDED, message, command.span)
        if isinstance(command, Workdir) and not has_workdir:
            message = f"Relative workdir {quoted(command.path)} can have unexpected results if the base image changes"
            yield CheckWarning(WORKDIR_RELATIVE_PATH, message, command.span)


def _bases(stages: Stages, stage: Stage) -> Iterator[Stage]:
    base = stages.base(stage, stage.origin.image)
    while base is not None:
        yield base
        base = stages.base(base, base.origin.image)


def _absolute(command: Instruction) -> bool:
    """Whether a WORKDIR is absolute, or may be for all that is known here."""
    return isinstance(command, Workdir) and command.path.lstrip("\"'")[:1] in {"/", "$"}


def _pairs(instruction: Env | Label) -> Iterator[CheckWarning]:
    command = "ENV" if isinstance(instruction, Env) else "LABEL"
    if instruction.legacy:
        message = f'"{command} key=value" should be used instead of legacy "{command} key value" format'
        yield CheckWarning(LEGACY_KEY_VALUE_FORMAT, message, instruction.span)
    if isinstance(instruction, Env):
        yield from _secrets(command, [name for name, _ in instruction.pairs], instruction.span)


def _secrets(command: str, names: Iterable[str], span: Span) -> Iterator[CheckWarning]:
    for name in names:
        if re.search(_SENSITIVE, name, re.IGNORECASE) and not re.search(_HARMLESS, name, re.IGNORECASE):
            message = f"Do not use ARG or ENV instructions for sensitive data ({command} {quoted(name)})"
            yield CheckWarning(SECRETS_USED_IN_ARG_OR_ENV, message, span)


def _ports(expose: Expose) -> Iterator[CheckWarning]:
    for port in expose.ports:
        if "$" in port:
            continue
        protocol = port.rpartition(":")[2].partition("/")[2]
        if protocol != protocol.lower():
            message = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
            yield CheckWarning(EXPOSE_PROTO_CASING, message, expose.span)
        if ":" in port:
            message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            yield CheckWarning(EXPOSE_INVALID_FORMAT, message, expose.span)


def _ignored(files: Copy | Add, ignore: IgnoreRules) -> Iterator[CheckWarning]:
    if ignore.has_exceptions or (isinstance(files, Copy) and files.from_):
        return
    verb = "Copy" if isinstance(files, Copy) else "Add"
    for source in files.sources:
        path = clean(source)
        if "$" not in source and not source.startswith(_URLS) and ignore.excludes(path.lstrip("/")):
            message = f"Attempting to {verb} file {quoted(path)} that is excluded by .dockerignore"
            yield CheckWarning(COPY_IGNORED_FILE, message, files.span)


def _description(instruction: Instruction) -> Iterator[CheckWarning]:
    match instruction:
        case From():
            command, names = "FROM", [instruction.name] if instruction.name else []
        case Arg():
            command, names = "ARG", [name for name, _ in instruction.args]
        case _:
            return
    if not instruction.comments or not names or instruction.comments[-1].partition(" ")[0] in names:
        return
    example = names[0] if len(names) == 1 else "<arg_key>"
    message = f"Comment for {command} should follow the format: `# {example} <description>`"
    yield CheckWarning(INVALID_DEFINITION_DESCRIPTION, message, instruction.span)
