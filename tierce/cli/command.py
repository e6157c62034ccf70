"""What every command gets and shares: the settings, and options that are the same everywhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager

from image.value import dataclass, field
from tierce.cli.declare import WrongUsage, option
from tierce.cli.output import echo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import IO, Any

    from image.paths import Path
    from store.store import Store


@dataclass(frozen=True, slots=True)
class Settings:
    """What the global options and the surroundings decide. ``clock`` gives seconds since 1970.

    ``said`` is what options that concern more than their command leave for others to look up.
    """

    root: Path
    environ: Mapping[str, str]
    clock: Callable[[], float] = time.time
    debug: bool = False
    said: dict[str, Any] = field(default_factory=dict, compare=False)

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The store under the root, made when absent. Raises StorageError.

        An ordinary user's process becomes root of a user namespace first: files of a store
        belong to the ids of its images.
        """
        from store.store import Store

        if os.geteuid() != 0 and os.environ.get("TIERCE_USER_NAMESPACE") != "no":
            from runner.runtime.user_namespace import enter

            enter(os.environ, self.root)

        with Store.open(self.root, self._keep_free()) as store:
            yield store

    def _keep_free(self) -> int | None:
        """How much of the disk pulls leave, where the user says so. Raises InvalidInput."""
        kept = self.environ.get("TIERCE_KEEP_FREE")
        if not kept:
            return None
        from tierce.cli.units import parse_size

        return parse_size(kept)


def default_root(environ: Mapping[str, str], uid: int) -> Path:
    """Where images live when ``--root`` says nothing: the system's place, or the user's own."""
    from image.paths import Path

    if configured := environ.get("TIERCE_ROOT"):
        return Path(configured)
    if uid == 0:
        return Path("/var/lib/tierce")
    data = environ.get("XDG_DATA_HOME") or os.path.join(environ.get("HOME", "/"), ".local/share")
    return Path(data) / "tierce"


class ExitCode(Exception):
    """A command failed in a way whose exit code its error alone does not tell.

    ``cause`` is reported as usual; docker's ``run`` reports its own errors with 125.
    """

    def __init__(self, code: int, cause: Exception) -> None:
        super().__init__(str(cause))
        self.code = code
        self.cause = cause


format_option = option(
    "--format", "form", default="", metavar="FORMAT",
    help="'table', 'json', 'table TEMPLATE' or a Go TEMPLATE such as '{{.ID}}'",
)  # fmt: skip


def _refuse_trust(_settings: object, _name: str, trusting: bool) -> None:
    if not trusting:
        raise WrongUsage("docker's content trust is not supported, check signatures with cosign")


content_trust_option = option(
    "--disable-content-trust/--content-trust", default=True, hidden=True, expose_value=False, callback=_refuse_trust
)
"""Docker's, which is off by default there too."""


def confirm(question: str) -> bool:
    """Docker's y/N question. What is not an answer, or no one to give it, is no."""
    echo(f"{question} [y/N] ", nl=False)
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def binary(stream: Any) -> IO[bytes]:
    """The bytes side of standard input or output."""
    found: IO[bytes] = stream.buffer
    return found
