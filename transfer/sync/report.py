"""What a sync has done: one outcome an image, and what they come to."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, Literal

from image.value import dataclass, field
from transfer.sync.plan import Removal, Step

Status = Literal[
    "copied", "unchanged", "left out", "failed", "deleted", "kept", "would copy", "would delete", "not tried"
]
_EXPECTED: Final[frozenset[Status]] = frozenset({"unchanged", "left out"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one image, or of a whole rule that failed before its images were known."""

    status: Status
    source: str
    target: str
    why: str = ""
    digest: str = ""
    was: str = ""
    backup: str = ""
    size: int = 0
    """Bytes that went through."""
    pulls: int = 0
    """Manifests that it took, or will take at least."""

    @classmethod
    def of(cls, status: Status, step: Step, why: str = "", *, digest: str = "", size: int = 0) -> Outcome:
        return cls(
            status,
            step.pair.source,
            step.pair.target,
            why or step.why,
            digest or str(step.source.digest),
            str(step.target or ""),
            step.backup,
            size,
            step.pulls,
        )

    @classmethod
    def removed(cls, status: Status, removal: Removal, why: str = "") -> Outcome:
        return cls(status, "", removal.target, why or removal.kept, was=str(removal.digest or ""))

    @property
    def is_news(self) -> bool:
        """Whether something happened, or has to."""
        return self.status not in _EXPECTED

    def line(self) -> str:
        """For a terminal or a log."""
        way = f"{self.source} -> {self.target}" if self.source and self.target else self.source or self.target
        backup = f", the old one saved as {self.backup}" if self.backup and self.status != "failed" else ""
        return f"{self.status}: {way}" + (f" ({self.why})" if self.why else "") + backup

    def members(self) -> dict[str, Any]:
        """For JSON; what is empty is left out."""
        named = {name: getattr(self, name) for name in ("status", "source", "target", "why", "digest", "was", "backup")}
        return {name: value for name, value in named.items() if value} | {"bytes": self.size}


@dataclass(frozen=True, slots=True)
class Report:
    """Of a whole sync. ``pulls_left`` are by registry, as it said last; ``exact`` is whether ``pulls`` are."""

    outcomes: tuple[Outcome, ...]
    seconds: float = 0.0
    pulls_left: dict[str, int] = field(default_factory=dict)
    exact: bool = True

    @property
    def failed(self) -> bool:
        return any(outcome.status in {"failed", "not tried"} for outcome in self.outcomes)

    @property
    def pulls(self) -> int:
        return sum(outcome.pulls for outcome in self.outcomes)

    def count(self) -> Counter[Status]:
        return Counter(outcome.status for outcome in self.outcomes)

    def summary(self) -> str:
        """One line: ``3 copied, 40 unchanged, 1 failed; 12345 bytes in 2.1 s``."""
        counted = ", ".join(f"{count} {status}" for status, count in sorted(self.count().items()))
        size = sum(outcome.size for outcome in self.outcomes)
        return f"{counted or 'nothing to do'}; {size} bytes in {self.seconds:.1f} s"

    def pulls_line(self) -> str:
        """What a dry run says of pulls: ``needs at least 12 pulls; docker.io says that 76 remain``."""
        needed = f"needs {'' if self.exact else 'at least '}{self.pulls} pulls"
        if not self.exact:
            needed += " (an index counts one more for each image in it)"
        left = [f"{host} says that {count} remain" for host, count in sorted(self.pulls_left.items())]
        return "; ".join([needed, *left])

    def members(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "summary": dict(sorted(self.count().items())),
            "bytes": sum(outcome.size for outcome in self.outcomes),
            "seconds": round(self.seconds, 3),
            "pulls": self.pulls,
            "pullsExact": self.exact,
            "pullsLeft": self.pulls_left,
            "images": [outcome.members() for outcome in self.outcomes],
        }
