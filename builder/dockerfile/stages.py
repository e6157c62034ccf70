"""Stages: global ARGs, the stages below them, and how instructions refer to a stage.

Pure: FROM's image may hold variables, so its base is asked for once they are known.

Spec: dockerfile.md 1.2 and 1.3 "FROM", 1.5 "--from", 2 "Messages".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from builder.dockerfile.arguments import did_you_mean
from builder.dockerfile.instructions import Arg, Copy, From, Instruction, Run
from builder.dockerfile.words import quoted
from image.errors import DockerfileError
from image.span import Span
from image.value import dataclass, replace

SCRATCH = "scratch"
"""The base without layers."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM and what follows it. ``index`` counts from 0."""

    index: int
    origin: From
    commands: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """The name given, in lower case; "" if there is none."""
        return self.origin.name

    @property
    def title(self) -> str:
        """The name that progress and messages show."""
        return self.name or f"stage-{self.index}"

    def references(self) -> Iterator[StageReference]:
        """The stages, named contexts or images that the stage's own instructions read from."""
        for command in self.commands:
            for name in references(command):
                yield StageReference(name, command.span)


@dataclass(frozen=True, slots=True)
class StageReference:
    """A ``--from`` as written, and where."""

    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Stages:
    """A whole Dockerfile, split."""

    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]

    def target(self, name: str) -> Stage:
        """The stage to build: by name (case does not matter) or index; the last for "".

        Raises DockerfileError if there is none.
        """
        if not name:
            return self.stages[-1]
        found = self._find(name, len(self.stages))
        if found is None:
            names = (stage.name for stage in self.stages if stage.name and not _is_index(name))
            raise DockerfileError(f"target stage {quoted(name)} could not be found{did_you_mean(name, names)}")
        return found

    def base(self, stage: Stage, image: str) -> Stage | None:
        """The earlier stage that FROM's expanded ``image`` names; None if it is an image.

        Case counts, and of two stages with one name the later wins.
        """
        earlier = (other for other in reversed(self.stages[: stage.index]) if other.name)
        return next((other for other in earlier if other.name == image), None)

    def source(self, stage: Stage, reference: StageReference) -> Stage | None:
        """The stage that a ``--from`` of ``stage`` means; None for a named context or an image.

        Case does not matter; a number is an index. Raises DockerfileError for a stage that
        is not defined before ``stage``.
        """
        found = self._find(reference.name, stage.index)
        if found is not None:
            return found
        later = self._find(reference.name, len(self.stages))
        if later is not None:
            problem = f"it needs to be defined before current stage {quoted(stage.title)}"
            raise DockerfileError(f"cannot copy from stage {quoted(reference.name)}, {problem}", span=reference.span)
        if _is_index(reference.name):
            raise DockerfileError(f"invalid stage index {reference.name}", span=reference.span)
        return None

    def check_cycles(self) -> None:
        """Raises DockerfileError if a stage reads from itself, through others or directly."""
        done: set[int] = set()
        for stage in self.stages:
            found = self._cycle(stage, done)
            if found is not None:
                raise DockerfileError(f"circular dependency detected on stage: {stage.title}", span=found)

    def _cycle(self, start: Stage, done: set[int]) -> Span | None:
        """Where a cycle that ``start`` leads into closes. Iterative: stages may be many."""
        if start.index in done:
            return None
        stack = [(start, iter(tuple(start.references())))]
        active = {start.index}
        done.add(start.index)
        while stack:
            stage, pending = stack[-1]
            reference = next(pending, None)
            if reference is None:
                active.discard(stage.index)
                stack.pop()
                continue
            other = self._find(reference.name, len(self.stages))
            if other is None:
                continue
            if other.index in active:
                return reference.span
            if other.index not in done:
                done.add(other.index)
                active.add(other.index)
                stack.append((other, iter(tuple(other.references()))))
        return None

    def _find(self, name: str, before: int) -> Stage | None:
        lowered = name.lower()
        for stage in reversed(self.stages[:before]):
            if stage.name == lowered and lowered:
                return stage
        if _is_index(name) and int(name) < before:
            return self.stages[int(name)]
        return None


def split_stages(instructions: Iterable[Instruction]) -> Stages:
    """Global ARGs and stages. Raises DockerfileError if an instruction is in no stage, or there is none."""
    global_args: list[Arg] = []
    stages: list[Stage] = []
    origin: From | None = None
    commands: list[Instruction] = []
    for instruction in instructions:
        match instruction:
            case From():
                if origin is not None:
                    stages.append(Stage(len(stages), origin, tuple(commands)))
                origin, commands = instruction, []
            case Arg() if origin is None:
                global_args.append(instruction)
            case _ if origin is None:
                raise DockerfileError(
                    "no build stage in current context",
                    span=instruction.span,
                    hint="a Dockerfile starts with FROM, or with the ARGs that FROM uses",
                )
            case _:
                commands.append(instruction)
    if origin is None:
        raise DockerfileError("dockerfile contains no stages to build")
    stages.append(Stage(len(stages), origin, tuple(commands)))
    return Stages(tuple(global_args), tuple(stages))


def references(instruction: Instruction) -> tuple[str, ...]:
    """The ``--from`` names of one instruction, as written."""
    match instruction:
        case Copy():
            return (instruction.from_,) if instruction.from_ else ()
        case Run():
            return tuple(name for mount in instruction.mounts if (name := _mount_source(mount)))
        case _:
            return ()


def _mount_source(mount: str) -> str:
    """The ``from`` of a mount, which can't hold variables. The last one counts, as in mounts.py."""
    values = [item.partition("=") for item in mount.replace('"', "").split(",")]
    return next((value for key, _, value in reversed(values) if key.lower() == "from"), "")


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 10


def with_first_base(statements: tuple[Instruction, ...], image: str) -> tuple[Instruction, ...]:
    """The same with another image in the first FROM; "" changes nothing."""
    for place, one in enumerate(statements):
        if image and isinstance(one, From):
            return (*statements[:place], replace(one, image=image), *statements[place + 1 :])
    return statements
