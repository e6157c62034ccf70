"""Something done inside another network namespace: that of a process, or that of a user's bridges."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from image.errors import KernelError
from image.paths import Path
from runner.runtime.user_namespace import entered
from store.linux import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _T = TypeVar("_T")


def within(pid: int, act: Callable[[], _T]) -> _T:
    """What ``act`` returns there. Other threads stay where they are.

    Raises KernelError when the namespace can't be entered, and what ``act`` raises.
    """
    with ExitStack() as held:
        try:
            there, here = (os.open(f"/proc/{who}/ns/net", os.O_RDONLY | os.O_CLOEXEC) for who in (pid, "thread-self"))
            held.callback(os.close, there)
            held.callback(os.close, here)
            processes.setns(there, processes.CLONE_NEWNET)
            held.callback(processes.setns, here, processes.CLONE_NEWNET)
        except OSError as error:
            raise KernelError("network", "setns", error.errno or 0, f"/proc/{pid}/ns/net") from error
        return act()


def where_bridges_are(root: Path, act: Callable[[], _T]) -> _T | None:
    """``act`` done in the network namespace of this user's bridges, which for root is the host's.

    None when there is none: the bridges went with it.
    """
    if entered() is None:
        return act()
    from runner.network.user_network import UserNetwork  # never for root

    shared = UserNetwork(root, make=False)
    try:
        return shared.inside(act) if shared.fd >= 0 else None
    finally:
        shared.close()
