"""What reaches out of a step's sandbox, and who has to allow it.

A Dockerfile may be a stranger's, so it can ask for the host's network or for privileges, and
only the caller can grant them: ``--allow``. Steps that are not needed need no grant. Pure.

Spec: dockerfile.md 1.4; BuildKit's entitlements.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

from builder.graph import RunCommand, Step, inputs_first
from image.errors import DockerfileError, InvalidInput

Entitlement = Literal["network.host", "security.insecure"]
_KNOWN: Final = {name: name for name in get_args(Entitlement)}


def parse_entitlements(words: Iterable[str]) -> frozenset[Entitlement]:
    """The names in ``words``, each a list with commas. Raises InvalidInput for another name."""
    granted = set()
    for name in (name.strip() for word in words for name in word.split(",")):
        if name not in _KNOWN:
            raise InvalidInput(f"invalid value {name!r} of --allow: there are {', '.join(_KNOWN)}")
        granted.add(_KNOWN[name])
    return frozenset(granted)


def require_entitlements(target: Step, allowed: frozenset[Entitlement]) -> None:
    """Raises DockerfileError, at its line, for the first step that asks for what is not allowed."""
    for step in inputs_first(target):
        for entitlement, words in _asked(step):
            if entitlement not in allowed:
                raise DockerfileError(f"{words} is not allowed: build with --allow {entitlement}", span=step.span)


def _asked(step: Step) -> Iterable[tuple[Entitlement, str]]:
    operation = step.operation
    if isinstance(operation, RunCommand):
        if operation.security == "insecure":
            yield "security.insecure", "RUN --security=insecure"
        if operation.network == "host":
            yield "network.host", "RUN --network=host"
