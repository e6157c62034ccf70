"""``tierce build --verify-reproducible``: a second build, and what is said of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tierce.cli.output import echo

if TYPE_CHECKING:
    from store.store import Session
    from tierce.build.base_images import RememberedImages
    from tierce.build.building import BuildRequest, Connections, SolvedBuild
    from tierce.build.network import Network


def build_again(
    session: Session,
    network: Network,
    solved: Sequence[SolvedBuild],
    requests: Sequence[BuildRequest],
    world: Connections,
    images: RememberedImages,
) -> list[str]:
    """Build everything once more, without any cache and without a word; what differs, a line each."""
    from tierce.build.reproducible import scratch_session, verify

    with ExitStack() as stack:
        again = stack.enter_context(scratch_session(session))
        second = stack.enter_context(network.of_session(again))
        world = dataclasses.replace(world, downloads=second, repositories=second, progress=lambda _: None)
        return verify(session, again, solved, requests, world, images.resolved)


def tell(differences: Sequence[str]) -> int:
    """Print the result on standard error; the exit code."""
    for line in differences:
        echo(line, err=True)
    if differences:
        echo(f"not reproducible: {len(differences)} differences between two builds", err=True)
        return 1
    echo("reproducible: a second build without cache gave the same", err=True)
    return 0
