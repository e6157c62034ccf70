"""The flags of ``tierce build`` that say what comes out, and what is printed at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from image.errors import InvalidInput
from image.value import dataclass, replace
from tierce.cli.build_said import say_built
from tierce.cli.command import Settings

if TYPE_CHECKING:
    from builder.output_words import Output
    from builder.progress import Event, Progress
    from image.media_types import Compression
    from image.platform import Platform
    from store.store import Session
    from tierce.build.building import BuildRequest, SolvedBuild
    from tierce.build.outputs import Outcome, Surroundings
    from tierce.cli.build_flags import BuildFlags
    from transfer.registries import Registries


@dataclass(frozen=True, slots=True)
class Wanted:
    """What comes out, for which platforms."""

    outputs: tuple[Output, ...]
    platforms: tuple[Platform, ...]

    @property
    def compression(self) -> Compression:
        """What new layers are packed as at once: what all images want, if they agree."""
        from builder.output_words import ArchiveOutput, ImageOutput

        forms = [one.form for one in self.outputs if isinstance(one, ImageOutput | ArchiveOutput)]
        found = {form.compression for form in forms if form.level is None and not form.force}
        return found.pop() if len(found) == 1 and all(form.level is None for form in forms) else "gzip"


def wanted(flags: BuildFlags) -> Wanted:
    """Raises InvalidInput for what contradicts itself, before anything is built."""
    from builder.output_words import OutputFlags, parse_outputs
    from tierce.build.platforms import parse_platforms
    from tierce.host_platform import host_platform

    platforms = parse_platforms(flags.platform, host_platform())
    outputs = parse_outputs(
        OutputFlags(
            outputs=flags.output,
            push=flags.push,
            load=flags.load,
            docker=flags.format in {"docker", "v2s2"},
            annotations=flags.annotation,
            squash=flags.squash or not flags.layers,
            omit_history=flags.omit_history,
            platforms=len(platforms),
        )
    )
    return Wanted(outputs, platforms)


def epoch_of(flags: BuildFlags, given: int | None) -> int | None:
    """The time that files and documents get: of a flag, else ``given``. Raises InvalidInput."""
    if flags.timestamp is not None and flags.source_date_epoch is not None:
        raise InvalidInput("--timestamp and --source-date-epoch mean the same: give one of them")
    flag = flags.timestamp if flags.timestamp is not None else flags.source_date_epoch
    return given if flag is None else flag


def surroundings(
    settings: Settings,
    session: Session,
    request: BuildRequest,
    registries: Callable[[], Registries],
    progress: Progress,
    members: Callable[[SolvedBuild], dict[str, object] | None],
) -> Surroundings:
    """What outputs are done with."""
    from tierce.build.outputs import Surroundings

    return Surroundings(
        session,
        request.tags,
        settings.clock(),
        request.solve.epoch_s,
        request.plan.build_platform,
        registries,
        progress,
        settings.clock,
        members,
    )


def told_of(progress: Progress, platform: Platform, platforms: int) -> Progress:
    """Progress of one platform of several, named as BuildKit names it: ``[linux/arm64 stage 1/2] RUN``."""
    if platforms == 1:
        return progress

    def tell(event: Event) -> None:
        if isinstance(event, Warned):
            progress(event)
        elif isinstance(event, StepOutput):
            progress(replace(event, step=f"{platform} {event.step}"))
        else:
            name = f"[{platform} {event.name[1:]}" if event.name.startswith("[") else f"[{platform}] {event.name}"
            progress(replace(event, step=f"{platform} {event.step}", name=name))

    from builder.progress import StepOutput, Warned

    return tell


def report(flags: BuildFlags, outputs: Sequence[Output], outcome: Outcome) -> None:
    """Write the files that were asked for, and say what was built: never where an output goes."""
    from builder.output_words import writes_to_stdout

    if flags.metadata_file is not None:
        flags.metadata_file.write_text(json.dumps(outcome.metadata(), indent=2))
    image_id = outcome.written.id if outcome.written else ""
    say_built(flags, image_id, outcome.names, err=writes_to_stdout(outputs))
