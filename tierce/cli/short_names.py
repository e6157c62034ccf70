"""Which registry a short name means, asked on a terminal and remembered, as podman does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from image.errors import InvalidInput, StorageError
from tierce.cli.output import echo
from tierce.cli.terminal import is_terminal

if TYPE_CHECKING:
    from image.reference import Reference
    from tierce.cli.command import Settings
    from transfer.registries_conf.values import RegistriesConf


@contextmanager
def meant(settings: Settings, conf: RegistriesConf, reference: Reference) -> Iterator[tuple[Reference, ...]]:
    """The full names to try for a name. A choice that was made here is kept when the block ends well.

    Raises InvalidReference where there is a choice, nobody to ask and short-name-mode is enforcing;
    InvalidInput when nothing was chosen.
    """
    candidates = conf.candidates(reference)
    if len(candidates) < 2 or not conf.asks or not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        yield conf.meanings(reference)
        return
    chosen = _ask(candidates)
    yield (chosen,)
    _remember(settings, reference, chosen)


def _ask(candidates: tuple[Reference, ...]) -> Reference:
    echo("Please select an image:")
    for number, candidate in enumerate(candidates, 1):
        echo(f"  {number}  {candidate}")
    echo(f"Number [1-{len(candidates)}]: ", nl=False)
    sys.stdout.flush()
    answer = sys.stdin.readline().strip()
    if answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(candidates):
        return candidates[int(answer) - 1]
    raise InvalidInput(f"{candidates[0].path}: no image was selected")


def _remember(settings: Settings, short: Reference, full: Reference) -> None:
    from transfer.registries_conf.aliases import remember

    try:
        file = remember(short, full, settings.environ, os.geteuid())
    except (StorageError, InvalidInput) as error:
        echo(f"WARNING: the choice is not remembered: {error}", err=True)
    else:
        echo(f"{short.familiar_repository} means {full.repository} from now on, says {file}", err=True)
