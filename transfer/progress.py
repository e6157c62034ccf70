"""What a transfer tells while it runs: one stream of small events, rendered elsewhere.

Events of several blobs interleave. The callback is called by one thread at a time; it
must not block for long, as the transfer waits for it. How far a blob is is told some times
a second, however fast it goes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final, Literal, TypeVar

from image.descriptor import Descriptor
from image.platform import Platform
from image.value import dataclass

_B = TypeVar("_B", bytes, memoryview, bytes | memoryview)
_INTERVAL_S: Final = 0.1

How = Literal["copied", "skipped", "mounted"]
"""``skipped``: the destination had it; ``mounted``: it was linked there from another repository."""


@dataclass(frozen=True, slots=True)
class ImageStarted:
    """One image of possibly several: its manifest, and everything that will be placed for it."""

    manifest: Descriptor
    platform: Platform | None
    blobs: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class BlobStarted:
    """``total`` in bytes as they come from the source."""

    descriptor: Descriptor
    total: int


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """``done`` bytes of the blob are through. After a retry it starts again from 0."""

    descriptor: Descriptor
    done: int


@dataclass(frozen=True, slots=True)
class BlobDone:
    """``origin`` is the repository that it was mounted from."""

    descriptor: Descriptor
    how: How
    origin: str = ""


@dataclass(frozen=True, slots=True)
class UnpackStarted:
    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class UnpackDone:
    """``size`` in bytes of the layer's files."""

    descriptor: Descriptor
    size: int


@dataclass(frozen=True, slots=True)
class ManifestDone:
    """A manifest or index is at the destination; the last one is the image itself."""

    descriptor: Descriptor
    how: How


Event = ImageStarted | BlobStarted | BlobProgress | BlobDone | UnpackStarted | UnpackDone | ManifestDone
Progress = Callable[[Event], None]


def silent(_event: Event) -> None:
    """A progress callback for callers that show nothing."""


def counted(blob: Descriptor, blocks: Iterator[_B], progress: Progress) -> Iterator[_B]:
    """The same blocks, and how many bytes of the blob they have been."""
    done, told_s = 0, monotonic()
    for block in blocks:
        yield block
        done += len(block)
        if (now_s := monotonic()) - told_s >= _INTERVAL_S:
            told_s = now_s
            progress(BlobProgress(blob, done))


def one_at_a_time(progress: Progress) -> Progress:
    """The same callback for callers of several threads."""
    lock = threading.Lock()

    def locked(event: Event) -> None:
        with lock:
            progress(event)

    return locked
