"""Layers of finished steps: packed, hashed, compressed and remembered beside the steps that follow.

A step's claim is let go of when its layer is committed, so that whoever waits for the same step
finds it in the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from builder.graph import Step
from builder.results import BuiltLayer, Rootfs, Stack
from builder.step_keys import located
from builder.steps.moved_copy import MovedCopy
from image import media_types
from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.errors import Cancelled, TierceError
from image.value import dataclass
from store.claims import Claim
from store.layers import Workspace
from store.metadata import CacheRecord
from store.store import Session

if TYPE_CHECKING:
    from image.media_types import Compression
    from store.packers import Packers

_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True)
class Made:
    """A step whose effect is done, and whose layer is still to be packed."""

    step: Step
    key: str
    base: Rootfs
    workspace: Workspace
    took_s: float
    moved: MovedCopy | None
    """Of which layer and blob it is another copy, if of any."""
    leads: tuple[str, ...]
    """Keys under which a later build finds the layer to take files from."""


class Commits:
    """Of one build. ``cancelled`` is set when a layer can't be kept (a full disk): the build ends at once."""

    def __init__(
        self, session: Session, clock: Callable[[], float], cancelled: threading.Event, *,
        compression: Compression, level: int | None, clamp_s: int | None,
    ) -> None:  # fmt: skip
        self._session = session
        self._clock = clock
        self._cancelled = cancelled
        self._compression = compression
        self._level = level
        self._clamp_s = clamp_s
        self._pool: ThreadPoolExecutor | None = None
        self._packers: Packers | None = None
        self.error: BaseException | None = None
        """Why the first layer could not be kept."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the block lasts layers are made; at its end they are. A cached build imports nothing for it."""
        from store.packers import Packers

        self._packers = Packers()
        try:
            with ThreadPoolExecutor(_AT_ONCE, "commit") as self._pool:
                yield
        finally:
            self._packers.close()

    def abort(self, error: BaseException) -> None:
        """After the failure of a step, layers that are done are kept for the next build; else it ends at once."""
        if self._packers is not None and (isinstance(error, Cancelled) or not isinstance(error, TierceError)):
            self._packers.abort()

    def submit(self, made: Made, held: Claim | None) -> Future[Stack]:
        """The layers up to this step's, bottom to top, in a while. The claim is released then."""
        assert self._pool is not None
        return self._pool.submit(self._commit_or_stop, made, held)

    def _commit_or_stop(self, made: Made, held: Claim | None) -> Stack:
        try:
            with located(made.step):
                return self._commit(made)
        except BaseException as error:
            self.error = self.error or error
            self._cancelled.set()
            raise
        finally:
            if held is not None:
                held.release()

    def _commit(self, made: Made) -> Stack:
        """Pack a finished workspace into a layer and its blob, and remember both for next time."""
        diff_id, blob, size, entries = self._packed(made)
        below = made.base.stack.result()
        parent = below[-1].chain_id if below else None
        layer = self._session.commit_layer(made.workspace, parent, diff_id, size=size, entries=entries)
        built = BuiltLayer(layer.chain_id, layer.diff_id, blob, self._clock())
        metadata = self._session.store.metadata
        metadata.add_cached(
            CacheRecord(
                made.key, built.chain_id, built.diff_id, blob, size, made.step.name, built.created_s, took_s=made.took_s
            )
        )
        for lead in made.leads:
            metadata.add_cached(CacheRecord(lead, None, None, None, 0, made.key))
        return (*below, built)

    def _packed(self, made: Made) -> tuple[DiffID, Descriptor, int, int]:
        """The layer's diff_id and blob, the size of its files in bytes, and how many entries it has."""
        if made.moved is not None and made.moved.record.blob is not None:
            layer = made.moved.layer
            return layer.diff_id, made.moved.record.blob, layer.size, layer.entries
        assert self._packers is not None
        with self._session.writer() as writer:
            packed = self._packers.pack(
                made.workspace.diff, writer, self._compression, level=self._level, clamp_s=self._clamp_s
            )
            if not self._is_here(packed.digest, packed.size):
                writer.commit_as(packed.digest)
        blob = Descriptor(media_types.oci_layer(self._compression), packed.digest, packed.size)
        return packed.diff_id, blob, packed.unpacked_size, packed.entries

    def _is_here(self, digest: Digest, size: int) -> bool:
        """Whether the same blob is in the store already, as it is for every step that left no files: nothing to flush."""
        return self._session.reuse(digest) and self._session.content.size(digest) == size
