"""``build --check``: the warnings about a Dockerfile, without a build and without its images.

What an image sets is looked up only if a stage on it reads a variable that nobody else
defines, and then its configuration alone is fetched.
"""

from __future__ import annotations

from collections.abc import Callable

from builder.check import check, check_options, without_unknown
from builder.dockerfile.checks import CheckWarning
from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse
from builder.dockerfile.stages import split_stages, with_first_base
from builder.graph import BaseImage
from builder.plan import Planned, Resolve, Source, plan, stand_in
from image.errors import NotFound, RegistryError
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass, replace
from tierce.build.building import BuildRequest, main_context, with_source_lines


@dataclass(frozen=True, slots=True)
class Checked:
    """The warnings by line, and the lines that they count in. ``fails``: the file makes an error of them."""

    warnings: tuple[CheckWarning, ...]
    lines: tuple[str, ...]
    fails: bool


def check_build(request: BuildRequest, at_hand: Resolve, remote: Resolve) -> Checked:
    """Every stage's warnings, or those of the target if the request names one.

    ``at_hand`` gives images that cost nothing and raises NotFound for others, which ``remote``
    is asked for. Raises DockerfileError for a Dockerfile that can't be built.
    """
    with with_source_lines(request):
        document = parse(request.dockerfile, request.name)
        statements = with_first_base(instructions(document), request.plan.first_base)
        source = Source(split_stages(statements), document.escape)
        options = check_options(document, request.plan.build_args)
        rules = main_context(request).rules
        planned = _planned(source, request, at_hand, remote)
        found = check(document, statements, source.stages, planned, options=options, ignore=rules)
    return Checked(found, document.lines, options.error)


def read_source(request: BuildRequest) -> Source:
    """The stages of a request's Dockerfile. Raises DockerfileError."""
    with with_source_lines(request):
        document = parse(request.dockerfile, request.name)
        statements = with_first_base(instructions(document), request.plan.first_base)
        return Source(split_stages(statements), document.escape)


def _planned(source: Source, request: BuildRequest, at_hand: Resolve, remote: Resolve) -> Planned:
    """The plan of all stages that count, less what would rest on images that nobody knows."""
    every_stage = not request.plan.target
    images = _Lenient(at_hand)
    planned = plan(source, request.plan, images.resolve, every_stage=every_stage)
    if len(without_unknown(planned, images.unknown)) != len(planned.noticed):
        images = _Lenient(at_hand, remote)
        planned = plan(source, request.plan, images.resolve, every_stage=every_stage)
    return replace(planned, noticed=without_unknown(planned, images.unknown))


class _Lenient:
    """Looks images up in one place after the other, and makes do with those that are in none."""

    def __init__(self, *places: Callable[[Reference, Platform], BaseImage]) -> None:
        self._places = places
        self.unknown: set[str] = set()

    def resolve(self, reference: Reference, platform: Platform) -> BaseImage:
        for place in self._places:
            try:
                return place(reference, platform)
            except (NotFound, RegistryError):
                continue
        self.unknown.add(str(reference))
        return stand_in(reference, platform)
