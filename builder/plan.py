"""Planning: stages and arguments to a graph of steps. Pure, given a way to look images up.

Only what the target needs is planned. Variables are expanded here, with the environment
of the moment, so a step holds no variable; the image configuration and the history take
shape on the way.

Spec: dockerfile.md 1.2 (scopes), 1.3 (instructions), 7 (configuration and history).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from builder.dockerfile.arguments import did_you_mean, suggest
from builder.dockerfile.checks import PREDEFINED_ARGS, base_image_platform
from builder.dockerfile.expand import Environment, expanded
from builder.dockerfile.instructions import Arg, From
from builder.dockerfile.stages import SCRATCH, Stage, StageReference, Stages
from builder.dockerfile.words import Usage
from builder.graph import BaseImage, CopyFiles, FromContext, FromImage, FromScratch, Graph, HistoryPlan, Step
from builder.named import NamedContext, NamedFiles, NamedImage, find_context
from builder.stage_plan import (
    PROXY_ARGS,
    Declared,
    Noticed,
    PlanOptions,
    Scope,
    StagePlan,
    StageState,
    declare,
    stage_label,
    step_count,
)
from image import media_types
from image.config import ContainerConfig, ImageConfig
from image.descriptor import Descriptor
from image.errors import DockerfileError, TierceError
from image.platform import Platform
from image.reference import Reference
from image.span import Span
from image.value import dataclass, replace

Resolve = Callable[[Reference, Platform], BaseImage]


@dataclass(frozen=True, slots=True)
class Source:
    """A Dockerfile, split into stages. ``escape`` is its escape character."""

    stages: Stages
    escape: str

    def target(self, options: PlanOptions) -> Stage:
        return self.stages.target(options.target)


@dataclass(frozen=True, slots=True)
class Needed:
    """The stages that a target needs, and the images that they start from, before any is looked up."""

    stages: tuple[int, ...]
    images: tuple[tuple[Reference, Platform], ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """A graph, and what was noticed on the way to it.

    ``stages`` are the indexes of those that were planned, ``declared`` what their ARGs declare,
    ONBUILD triggers included.
    """

    graph: Graph
    noticed: tuple[Noticed, ...]
    stages: frozenset[int]
    declared: tuple[Declared, ...]


def needed(source: Source, options: PlanOptions, *, every_stage: bool = False) -> Needed:
    """Which stages and images the target needs, so that images can be looked up at once.

    An ONBUILD trigger of a base image may ask for more. Raises DockerfileError.
    """
    source.stages.check_cycles()
    env = Environment(global_arguments(source, options), source.escape)
    return _closure(source, options, env, source.stages.stages if every_stage else [source.target(options)])


def _closure(source: Source, options: PlanOptions, env: Environment, start_from: Iterable[Stage]) -> Needed:
    """These stages and all that they need."""
    wanted: set[int] = set()
    images: list[tuple[Reference, Platform]] = []
    pending = list(start_from)
    while pending:
        stage = pending.pop()
        if stage.index in wanted:
            continue
        wanted.add(stage.index)
        if given := find_context(options.contexts, stage.name, options.platform):
            images += _named_image(given, options.platform)
            continue
        start = _start(stage, env)
        base = source.stages.base(stage, start.image)
        if given := find_context(options.contexts, start.image, _platform(start, options)):
            images += _named_image(given, _platform(start, options))
        elif base is not None:
            pending.append(base)
        elif start.image != SCRATCH:
            images.append((_image_name(start.image, start), _platform(start, options)))
        for reference in stage.references():
            if given := find_context(options.contexts, reference.name, options.platform):
                images += _named_image(given, options.platform)
            elif (other := source.stages.source(stage, reference)) is not None:
                pending.append(other)
            else:
                images.append((_image_name(reference.name, reference), options.platform))
    return Needed(tuple(sorted(wanted)), tuple(dict.fromkeys(images)))


def _named_image(given: tuple[str, NamedContext], platform: Platform) -> list[tuple[Reference, Platform]]:
    return [(given[1].reference, platform)] if isinstance(given[1], NamedImage) else []


def plan(source: Source, options: PlanOptions, resolve: Resolve, *, every_stage: bool = False) -> Planned:
    """The graph that builds the target. ``every_stage`` looks at those it does not need as well.

    Raises DockerfileError at the instruction that is wrong, or whose image ``resolve`` did not find.
    """
    planner = _Planner(source, options, resolve)
    for index in needed(source, options, every_stage=every_stage).stages:
        planner.plan_stage(source.stages.stages[index])
    target = planner.states[source.target(options).index]
    graph = Graph(
        target.top,
        options.platform,
        target.base,
        target.image_config(options),
        tuple(target.history),
        target.author,
    )
    return Planned(graph, tuple(planner.noticed), frozenset(planner.states), tuple(planner.declared))


def stand_in(reference: Reference, platform: Platform) -> BaseImage:
    """An image of which nothing but the name is known, to plan without looking images up."""
    empty = ImageConfig(platform, ContainerConfig())
    return BaseImage(reference, Descriptor.of(str(reference).encode(), media_types.OCI_MANIFEST), empty, ())


class _Planner:
    """Plans stage after stage; a stage starts from a copy of what an earlier one came to."""

    def __init__(self, source: Source, options: PlanOptions, resolve: Resolve) -> None:
        self._source = source
        self._options = options
        self._resolve = resolve
        self._globals = global_arguments(source, options)
        self.states: dict[int, StageState] = {}
        self.noticed: list[Noticed] = []
        self.declared: list[Declared] = []

    def plan_stage(self, stage: Stage) -> None:
        if given := find_context(self._options.contexts, stage.name, self._options.platform):
            self.states[stage.index] = self._replaced(*given, stage.origin, self._options.platform)
            return
        start = _start(stage, Environment(self._globals, self._source.escape))
        state = self._origin(stage, start)
        body = (*state.take_triggers(start.span), *stage.commands)
        label = stage_label(stage, self._source.stages)
        name = f"[{label}1/{step_count(body)}] FROM {start.image}"
        if state.top.name == "":
            state.top = replace(state.top, name=name)
        scope = Scope(self._globals, self._source.escape, self._options)
        work = StagePlan(label, state, scope, self._reader(stage), name=stage.name)
        work.carry_out(body)
        self.noticed += work.noticed
        self.declared += work.declared
        self.states[stage.index] = state

    def _origin(self, stage: Stage, start: From) -> StageState:
        """What the stage starts from. A source step is named by who knows the stage's length."""
        if given := find_context(self._options.contexts, start.image, _platform(start, self._options)):
            return self._replaced(*given, start, _platform(start, self._options))
        base = self._source.stages.base(stage, start.image)
        if base is not None:
            return self.states[base.index].child()
        if start.image == SCRATCH:
            return StageState.scratch(Step.make(FromScratch(), name="", span=start.span))
        platform = _platform(start, self._options)
        image = self._image(_image_name(start.image, start), platform, start)
        self.noticed += [Noticed(warning) for warning in base_image_platform(start, platform, image.config.platform)]
        step = Step.make(FromImage(image, image.manifest.digest), name="", span=start.span)
        return StageState.from_image(step, image)

    def _replaced(self, name: str, given: NamedContext, at: From, platform: Platform) -> StageState:
        """What a named context stands for as a stage: an image, or files on an empty root filesystem."""
        match given:
            case NamedImage(reference=reference):
                image = self._image(reference, platform, at)
                title = f"[context {name}] {reference.familiar}"
                step = Step.make(FromImage(image, image.manifest.digest), name=title, span=at.span)
                return StageState.from_image(step, image)
            case NamedFiles():
                empty = Step.make(FromScratch(), name=f"[context {name}]", span=at.span)
                files = (_files_step(name, at.span),)
                step = Step.make(
                    CopyFiles(("/",), "/"), empty, files, name=f"[context {name}] copy all files", span=at.span
                )
                state = StageState.scratch(step)
                state.history.append(HistoryPlan(f"COPY / / # from context {name}", step))
                return state

    def _reader(self, stage: Stage) -> Callable[[str, Span], Step]:
        """How an instruction of ``stage`` finds the root filesystem that ``--from`` names."""

        def read(name: str, span: Span) -> Step:
            reference = StageReference(name, span)
            if given := find_context(self._options.contexts, name, self._options.platform):
                if isinstance(given[1], NamedFiles):
                    return _files_step(given[0], span)
                image = self._image(given[1].reference, self._options.platform, reference)
                return Step.make(FromImage(image, image.manifest.digest), name=f"[context {given[0]}]", span=span)
            other = self._source.stages.source(stage, reference)
            if other is not None:
                self._plan_with_needs(other)
                return self.states[other.index].top
            image = self._image(_image_name(name, reference), self._options.platform, reference)
            return Step.make(FromImage(image, image.manifest.digest), name=f"FROM {image.reference}", span=span)

        return read

    def _plan_with_needs(self, stage: Stage) -> None:
        """A stage that an ONBUILD trigger asks for; nothing is left to do for any other."""
        if stage.index in self.states:
            return
        env = Environment(self._globals, self._source.escape)
        for index in _closure(self._source, self._options, env, [stage]).stages:
            if index not in self.states:
                self.plan_stage(self._source.stages.stages[index])

    def _image(self, reference: Reference, platform: Platform, at: _Located) -> BaseImage:
        try:
            return self._resolve(reference, platform)
        except DockerfileError:
            raise
        except TierceError as error:
            written = reference.familiar.removesuffix(":latest")
            stages = [stage.name for stage in self._source.stages.stages if stage.name]
            meant = suggest(written, stages)
            problem = str(error) if written in str(error) else f"{reference.familiar}: {error}"
            hint = f"did you mean the stage {meant}?" if meant else ""
            raise DockerfileError(problem, span=at.span, hint=hint) from error


def _files_step(name: str, span: Span) -> Step:
    return Step.make(FromContext(name), name=f"[context {name}] load files", span=span)


def global_arguments(source: Source, options: PlanOptions) -> dict[str, str]:
    """What FROM can see: the predefined arguments, then the global ARGs as the user overrode them."""
    values = dict(_predefined(options))
    for name in values.keys() & options.build_args.keys():
        values[name] = options.build_args[name]
    for arg in source.stages.global_args:
        declare(arg, values, options.build_args, {}, Environment(values, source.escape))
    return values


def unconsumed(source: Source, options: PlanOptions, planned: Planned) -> tuple[str, ...]:
    """The build arguments that no ARG of the file or of a trigger declares, and that mean nothing by themselves."""
    if not options.build_args:
        return ()
    declared = {declared.name for declared in planned.declared}
    known = PREDEFINED_ARGS | declared | {"SOURCE_DATE_EPOCH"} | set(_declared(source))
    names = (name for name in options.build_args.keys() - known if name.upper() not in PROXY_ARGS)
    return tuple(sorted(name for name in names if not name.startswith("BUILDKIT_")))


def _declared(source: Source) -> Iterator[str]:
    """The names that the ARGs of a file declare, in any stage."""
    for arg in source.stages.global_args:
        yield from (name for name, _ in arg.args)
    for stage in source.stages.stages:
        for command in stage.commands:
            if isinstance(command, Arg):
                yield from (name for name, _ in command.args)


def _predefined(options: PlanOptions) -> dict[str, str]:
    found = {"TARGETSTAGE": options.target or "default"}
    for prefix, platform in (("BUILD", options.build_platform), ("TARGET", options.platform)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}OSVERSION"] = platform.os_version
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found


class _Located(Protocol):
    """Something of a Dockerfile, for messages."""

    @property
    def span(self) -> Span: ...


def _start(stage: Stage, env: Environment) -> From:
    """A stage's FROM without variables. One that is not declared may be misspelt: a message says so."""
    origin, usage = stage.origin, Usage()
    start = expanded(origin, replace(env, usage=usage))
    assert isinstance(start, From)
    meant = next(filter(None, (did_you_mean(name, env.variables) for name in sorted(usage.unset))), "")
    if not start.image:
        problem = f"base name ({origin.image}) should not be blank{meant}"
        raise DockerfileError(problem, span=start.span, hint="give its ARG a default, or use --build-arg")
    if origin.platform and not start.platform:
        raise DockerfileError(f"empty platform value from expression {origin.platform}{meant}", span=start.span)
    if meant:
        _image_name(start.image, start, meant)
    return start


def _platform(start: From, options: PlanOptions) -> Platform:
    if not start.platform:
        return options.platform
    try:
        return Platform.parse(start.platform, options.platform)
    except TierceError as error:
        raise DockerfileError(str(error), span=start.span) from error


def _image_name(name: str, at: _Located, meant: str = "") -> Reference:
    try:
        return Reference.parse(name).with_default_tag()
    except TierceError as error:
        raise DockerfileError(f'failed to parse stage name "{name}": {error}{meant}', span=at.span) from error
