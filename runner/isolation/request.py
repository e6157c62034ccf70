"""What the supervisor of a step is told, as a value that crosses to its process."""

from __future__ import annotations

import json
from collections.abc import Sequence

from image.value import dataclass


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One process in the directory ``root``, which nothing else uses meanwhile.

    ``files`` are written at paths inside, with their text; ``rung`` is ``chroot`` or ``emulated``.
    ``uid``, ``gid`` and ``groups`` are the process's. ``cache`` is an empty directory for the supervisor.
    """

    rung: str
    root: str
    cache: str
    args: Sequence[str]
    env: Sequence[str]
    cwd: str
    uid: int
    gid: int
    groups: Sequence[int]

    def to_json(self) -> bytes:
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> StepRequest:
        return cls(**json.loads(data))
