"""What a Dockerfile offers to who builds it: its stages, and what one of them asks for.

Pure, and without any image: ``--call=outline`` and ``--call=targets``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from builder.dockerfile.expand import Environment
from builder.dockerfile.instructions import Instruction
from builder.dockerfile.mounts import SecretMount, SshMount
from builder.dockerfile.words import Usage, expand
from builder.graph import Graph, RunCommand, inputs_first
from builder.plan import Planned, Source, global_arguments, plan, stand_in
from builder.stage_plan import Declared, PlanOptions
from image.errors import DockerfileError
from image.span import Span
from image.value import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A stage that can be built. ``default`` is what is built when no target is named."""

    name: str
    default: bool
    description: str
    base: str
    platform: str
    span: Span


@dataclass(frozen=True, slots=True)
class Argument:
    """An ARG that makes a difference, with the value it would have; None for none."""

    name: str
    value: str | None
    description: str
    span: Span


@dataclass(frozen=True, slots=True)
class Wish:
    """A secret or an SSH agent that steps ask for."""

    name: str
    required: bool


@dataclass(frozen=True, slots=True)
class Outline:
    """What a target asks for. ``name`` is "" for a last stage without a name."""

    name: str
    description: str
    arguments: tuple[Argument, ...]
    secrets: tuple[Wish, ...]
    agents: tuple[Wish, ...]


def targets(source: Source, options: PlanOptions) -> tuple[Target, ...]:
    """The stages, in order. Raises DockerfileError for a global ARG that can't be evaluated."""
    stages = source.stages.stages
    env = Environment(global_arguments(source, options), source.escape)
    return tuple(
        Target(
            stage.name,
            stage is stages[-1],
            description(stage.origin, stage.name),
            _expanded(stage.origin.image, env),
            _expanded(stage.origin.platform, env),
            stage.origin.span,
        )
        for stage in stages
    )


def _expanded(word: str, env: Environment) -> str:
    """As written where it can't be expanded: that only matters to who builds this stage."""
    try:
        return env.word(word) or word
    except DockerfileError:
        return word


def outline(source: Source, options: PlanOptions) -> Outline:
    """What the target asks for. Raises DockerfileError."""
    planned = plan(source, options, stand_in)
    target = source.target(options)
    mounts = [mount.mount for run in _runs(planned.graph) for mount in run.mounts]
    return Outline(
        target.name,
        description(target.origin, target.name),
        tuple(_arguments(source, options, planned)),
        _wishes((mount.id, mount.required) for mount in mounts if isinstance(mount, SecretMount)),
        _wishes((mount.id, mount.required) for mount in mounts if isinstance(mount, SshMount)),
    )


def description(instruction: Instruction, name: str) -> str:
    """What a comment right above says of ``name``: ``# NAME description``."""
    found = (comment[len(name) + 1 :].strip() for comment in instruction.comments if comment.startswith(f"{name} "))
    return next(found, "") if name else ""


def _runs(graph: Graph) -> Iterator[RunCommand]:
    for step in inputs_first(graph.target):
        if isinstance(step.operation, RunCommand):
            yield step.operation


def _wishes(asked: Iterable[tuple[str, bool]]) -> tuple[Wish, ...]:
    """One a name; required if any step requires it."""
    found: dict[str, bool] = {}
    for name, required in asked:
        found[name] = found.get(name, False) or required
    return tuple(Wish(name, required) for name, required in found.items())


def _arguments(source: Source, options: PlanOptions, planned: Planned) -> Iterator[Argument]:
    """The global ARGs that FROM or a stage's bare ``ARG NAME`` reads, then the stages' own. One a name."""
    values = global_arguments(source, options)
    in_globals = {name: arg for arg in source.stages.global_args for name, _ in arg.args}
    wanted = _used_by_from(source, planned)
    own: dict[str, Declared] = {}
    for declared in planned.declared:
        if _has_default(declared) or declared.name not in values.keys() | in_globals.keys():
            own.setdefault(declared.name, declared)
        else:
            wanted.add(declared.name)
    for name, arg in in_globals.items():
        if name in wanted:
            yield Argument(name, values.get(name), description(arg, name), arg.span)
    for name, declared in own.items():
        if name not in wanted & in_globals.keys():
            yield Argument(name, declared.value, description(declared.arg, name), declared.arg.span)


def _has_default(declared: Declared) -> bool:
    return any(name == declared.name and default is not None for name, default in declared.arg.args)


def _used_by_from(source: Source, planned: Planned) -> set[str]:
    """Global ARGs in the FROMs of the planned stages, and those that their defaults read."""
    origins = [source.stages.stages[index].origin for index in planned.stages]
    found = {name for origin in origins for word in (origin.image, origin.platform) for name in _variables(word)}
    defaults = {name: default for arg in source.stages.global_args for name, default in arg.args}
    pending = list(found)
    while pending:
        new = _variables(defaults.get(pending.pop()) or "") - found
        found |= new
        pending += new
    return found


def _variables(word: str) -> set[str]:
    usage = Usage()
    with suppress(DockerfileError):
        expand(word, {}, usage=usage)
    return usage.unset
