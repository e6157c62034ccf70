"""The one stream of events of a build. Views (plain, tty, rawjson, quiet) render it.

Times are seconds of the solver's clock.
"""

from __future__ import annotations

from collections.abc import Callable

from image.errors import TierceError
from image.span import Span
from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal


@dataclass(frozen=True, slots=True)
class StepStarted:
    """Work on a step began."""

    step: str
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class StepOutput:
    """Bytes that a step's process wrote."""

    step: str
    stream: Literal["stdout", "stderr"]
    data: bytes
    at: float


@dataclass(frozen=True, slots=True)
class StepCached:
    """The result was in the build cache."""

    step: str
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class StepDone:
    """The step succeeded."""

    step: str
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The step failed; the build ends with ``error``."""

    step: str
    name: str
    error: TierceError
    at: float


@dataclass(frozen=True, slots=True)
class StepCancelled:
    """The step was stopped because the build ended."""

    step: str
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that is not an error. ``rule`` is the name of a build check, "" for none.

    ``excerpt`` shows the lines of the Dockerfile that ``span`` names.
    """

    rule: str
    message: str
    span: Span | None
    excerpt: str = ""


Event = StepStarted | StepOutput | StepCached | StepDone | StepFailed | StepCancelled | Warned
Progress = Callable[[Event], None]
"""Called from several threads."""
