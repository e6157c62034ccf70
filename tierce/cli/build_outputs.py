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
    from builder.provenance import Provenance
    from image.media_types import Compression
    from image.platform import Platform
    from store.store import Session
    from tierce.build.building import BuildRequest, SolvedBuild
    from tierce.build.outputs import Outcome, Surroundings, Written
    from tierce.cli.build_flags import BuildFlags
    from transfer.registries import Registries


@dataclass(frozen=True, slots=True)
class Wanted:
    """What comes out, for which platforms."""

    outputs: tuple[Output, ...]
    platforms: tuple[Platform, ...]
    provenance: Provenance | None = None
    index: bool = False

    @property
    def compression(self) -> Compression:
        """What new layers are packed as at once: what all images want, if they agree."""
        from builder.output_words import ArchiveOutput, ImageOutput

        forms = [one.form for one in self.outputs if isinstance(one, ImageOutput | ArchiveOutput)]
        found = {form.compression for form in forms if form.level is None and not form.force}
        return found.pop() if len(found) == 1 and all(form.level is None for form in forms) else "gzip"


def wanted(flags: BuildFlags) -> Wanted:
    """Raises InvalidInput for what contradicts itself, before anything is built."""
    from builder.output_words import ImageOutput, OutputFlags, parse_outputs
    from tierce.build.platforms import parse_platforms
    from tierce.host_platform import host_platform

    platforms = parse_platforms(flags.platforms, host_platform())
    provenance = _provenance(flags)
    index = (flags.pairs(flags.build_arg).get("BUILDKIT_MULTI_PLATFORM") or "").lower() in {"1", "true"}
    outputs = parse_outputs(
        OutputFlags(
            outputs=flags.output,
            push=flags.push,
            load=flags.load,
            docker=flags.format in {"docker", "v2s2"},
            annotations=flags.annotation,
            squash=flags.squash or flags.squash_all or not flags.layers,
            squash_base=flags.squash_all,
            omit_history=flags.omit_history,
            platforms=len(platforms),
            index=index or provenance is not None,
        )
    )
    if flags.manifest and not any(isinstance(one, ImageOutput) for one in outputs):
        raise InvalidInput("--manifest lists images of the store: use it with type=image")
    if not flags.tag and any(isinstance(one, ImageOutput) and one.push and not one.names for one in outputs):
        raise InvalidInput("a push needs a name: give one with --tag, or name= in the output")
    if provenance is not None and any(isinstance(one, ImageOutput) and one.form.docker for one in outputs):
        raise InvalidInput("docker's image format has no attestations: use the oci format")
    return Wanted(outputs, platforms, provenance, index)


def _provenance(flags: BuildFlags) -> Provenance | None:
    """Raises InvalidInput for what can't be attested."""
    if not (flags.attest or flags.provenance or flags.sbom):
        return None
    from builder.provenance import parse_attestations

    return parse_attestations(flags.attest, flags.provenance, flags.sbom)


def attested(
    request: BuildRequest, wanted: Provenance | None, started_s: float, clock: Callable[[], float]
) -> Callable[[SolvedBuild], dict[str, object]] | None:
    """What tells how a build was done; None when nobody asked. With an epoch it is the same each time."""
    if wanted is None:
        return None
    import secrets

    from builder.provenance import Facts, predicate

    ended_s, invocation = clock(), secrets.token_hex(12)
    timeless = request.solve.epoch_s is not None

    def tell(build: SolvedBuild) -> dict[str, object]:
        facts = Facts(
            graph=build.graph,
            options=replace(request.plan, platform=build.graph.platform),
            dockerfile=request.dockerfile,
            path=request.name,
            results=build.solver.result,
            origin=request.origin,
            started_s=None if timeless else started_s,
            finished_s=None if timeless else ended_s,
            invocation="" if timeless else invocation,
        )
        return predicate(wanted, facts)

    return tell


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
    provenance: Callable[[SolvedBuild], dict[str, object]] | None,
    *,
    index: bool,
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
        provenance,
        index,
    )


def add_to_list(session: Session, name: str, written: Written) -> None:
    """``--manifest``: the images that were built, in a list of the store that is made if there is none.

    Raises InvalidInput when the name is that of one image.
    """
    from image.reference import Reference
    from transfer.image_lists import change_list, create_list, with_entries

    store, reference = session.store, Reference.parse(name).with_default_tag()
    entries = [replace(image.manifest, platform=image.config.platform) for image in written.images]
    create_list(store, reference, amend=True)
    change_list(store, reference, lambda before: with_entries(before, entries))


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
