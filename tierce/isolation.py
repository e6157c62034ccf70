"""The isolation of this command's steps and containers, chosen once and made the store's way too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.runtime.privileges import probe

if TYPE_CHECKING:
    from runner.isolation.ladder import Isolation
    from store.store import Session


def choose_isolation(word: str, session: Session) -> Isolation | None:
    """None for namespaces; else the weaker isolation, and the session's trees are plain directories from now on.

    Raises NotPermitted, InvalidInput as ``runner.isolation.ladder.choose``.
    """
    store = session.store.root
    if word in {"auto", "default", "namespaces", "oci", "rootless", "strict"} and probe(store).contains:
        return None  # the usual case, without another import
    from runner.isolation.ladder import choose

    isolation = choose(word, probe(store))
    if isolation.rung == "namespaces":
        return None
    from store.plain_trees import PlainTrees

    session.store.layers.trees = PlainTrees(session.store.layers, session.scratch)
    return isolation
