"""All that is doubtful about a build: the checks of its file, and what planning noticed.

Spec: dockerfile.md 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from builder.dockerfile.checks import CheckOptions, CheckWarning, parse_check_options, run_checks, wanted_warnings
from builder.dockerfile.ignore import IgnoreRules
from builder.dockerfile.instructions import Instruction
from builder.dockerfile.parse import Document
from builder.dockerfile.stages import Stages
from builder.plan import Planned
from builder.stage_plan import Noticed
from image.errors import InvalidInput


def check_options(document: Document, build_args: Mapping[str, str]) -> CheckOptions:
    """What the build argument BUILDKIT_DOCKERFILE_CHECK says, else the file's ``# check=``. Raises InvalidInput."""
    return parse_check_options(build_args.get("BUILDKIT_DOCKERFILE_CHECK") or document.directive("check"))


def check(
    document: Document,
    instructions: tuple[Instruction, ...],
    stages: Stages,
    planned: Planned,
    *,
    options: CheckOptions,
    ignore: IgnoreRules,
) -> tuple[CheckWarning, ...]:
    """The wanted warnings about the stages that were planned, by line."""
    of_file = run_checks(document, instructions, stages, options=options, ignore=ignore, reachable=planned.stages)
    of_plan = wanted_warnings((noticed.warning for noticed in planned.noticed), instructions, options)
    if not of_plan:
        return of_file
    return tuple(sorted({*of_file, *of_plan}, key=lambda warning: (warning.span.start, warning.message)))


def without_unknown(planned: Planned, unknown: Iterable[str]) -> tuple[Noticed, ...]:
    """What was noticed, less what rests on the configuration of the ``unknown`` images."""
    names = set(unknown)
    return tuple(
        noticed for noticed in planned.noticed if noticed.base is None or str(noticed.base.reference) not in names
    )


def refuse(warnings: Iterable[CheckWarning], options: CheckOptions) -> None:
    """Raises InvalidInput, in the words of BuildKit, if one warning is enough to fail the build."""
    rules = sorted({warning.rule.name for warning in warnings})
    if options.error and rules:
        raise InvalidInput(f"lint violation found for rules: {', '.join(rules)}")
