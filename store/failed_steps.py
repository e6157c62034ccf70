"""The root filesystems of build steps that failed, kept so that a person can look inside.

    <root>/failed/<id>.json   how the step ran; its files are a layer directory that a lease holds

The newest few are kept; an older one goes when another step fails, or with ``builder prune``.
What the step's mounts showed is kept with it: files of a context lie beside its own, layers of
stages and images are held. Secrets are no part of it, only their names.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from image.digest import ChainID
from image.errors import NotFound
from image.value import dataclass
from store.content import replace_file

if TYPE_CHECKING:
    from store.layers import Workspace
    from store.store import Store

_KEPT: Final = 3


@dataclass(frozen=True, slots=True)
class FailedMount:
    """What the step had at ``target``: files, a cache, or else a tmpfs.

    ``copy`` is a path inside the step's layer directory, for files of a context and a script.
    ``source`` is a path in a stage or image, whose layers are those of ``chain`` ("": it has
    none). ``id`` is a cache directory's, with ``mode``, ``uid`` and ``gid``.
    """

    target: str
    copy: str = ""
    source: str = ""
    chain: str = ""
    read_only: bool = False
    id: str = ""
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class FailedStep:
    """``directories`` are the layer directories below, top first; ``directory`` is the step's own."""

    id: str
    name: str
    directory: str
    directories: tuple[str, ...]
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    network: str
    mounts: tuple[FailedMount, ...] = ()
    left_out: tuple[str, ...] = ()
    """Secrets and agents that the step had, by name."""
    hostname: str = ""
    insecure: bool = False
    lent: tuple[FailedMount, ...] = ()
    """Files of the host that every step of the build had; ``source`` is a path of the host."""
    lent_env: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    """Names of the proxy variables that it had. A value may hold a password, so it is not kept."""
    options: str = ""
    """See ``builder.ports.Sandbox.options``."""


class FailedSteps:
    """Those of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._place = store.root / "failed"

    def keep(self, step: FailedStep, base: ChainID | None) -> None:
        """Hold the step's files beyond the session that made them, and let the oldest go."""
        metadata = self._store.metadata
        with metadata.transaction():
            metadata.lease(self.lease(step.id), "directory", step.directory)
            for chain in {str(base) if base else "", *(mount.chain for mount in step.mounts)} - {""}:
                metadata.lease(self.lease(step.id), "chain", chain)
        self._place.mkdir(mode=0o700, exist_ok=True)
        replace_file(self._file(step.id), json.dumps(asdict(step)).encode("utf-8", "surrogateescape"), 0o600)
        for old in self.ids()[_KEPT:]:
            self.remove(old)

    def ids(self) -> list[str]:
        """Newest first."""
        with suppress(FileNotFoundError):
            files = sorted(self._place.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
            return [path.stem for path in files]
        return []

    def get(self, step_id: str = "") -> FailedStep:
        """A step by the start of its id; the newest for "". Raises NotFound."""
        found = [known for known in self.ids() if known.startswith(step_id)]
        if not found:
            raise NotFound(f"no failed build step {step_id}".rstrip() + ": only the last few are kept")
        fields = json.loads(self._file(found[0]).read_bytes())
        mounts, lent = (tuple(FailedMount(**mount) for mount in fields.pop(name, ())) for name in ("mounts", "lent"))
        tuples = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return FailedStep(**{**fields, **tuples}, mounts=mounts, lent=lent)

    def remove(self, step_id: str) -> None:
        """Let a step go, and its files."""
        metadata, layers = self._store.metadata, self._store.layers
        with metadata.transaction():
            for directory in metadata.lease_holdings(self.lease(step_id), "directory"):
                layers.discard(directory)
            metadata.release(self.lease(step_id))
        layers.empty_trash()
        with suppress(FileNotFoundError):
            self._file(step_id).unlink()

    def workspace(self, step: FailedStep) -> Workspace:
        """The step's files as the writable side of a mount, once more."""
        return self._store.layers.reopen_workspace(step.directory)

    def lease(self, step_id: str) -> str:
        """What holds the step's files, in the words of ``Metadata.lease``."""
        return f"failed-{step_id}"

    def _file(self, step_id: str) -> Path:
        return self._place / f"{step_id}.json"


def new_id(taken: Sequence[str] = ()) -> str:
    """Short enough to type."""
    while (made := secrets.token_hex(3)) in taken:
        pass
    return made
