"""What is known of a transfer by its events so far: blobs, bytes, rates and times left. Draws nothing."""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, assert_never

from image.descriptor import Descriptor
from image.digest import Digest
from image.value import dataclass, field
from transfer.progress import (
    BlobDone,
    BlobProgress,
    BlobStarted,
    Event,
    ImageStarted,
    ManifestDone,
    UnpackDone,
    UnpackStarted,
)

Phase = Literal["waiting", "copying", "copied", "skipped", "mounted", "unpacking", "unpacked"]
_WINDOW_S: Final = 5.0
"""A rate is that of the last seconds: what was before a pause says nothing of what follows."""
_SHORTEST_S: Final = 0.5
_SAMPLES: Final = 32

Key = tuple[str, Digest]
"""An image, where several are on their way, and a blob of it."""


class Meter:
    """Bytes by time, as far back as a rate looks."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)

    def add(self, done: int, now_s: float) -> None:
        """``done`` bytes so far; fewer than before is a new start."""
        samples = self._samples
        if samples and done < samples[-1][1]:
            samples.clear()
        while samples and now_s - samples[0][0] > _WINDOW_S and len(samples) > 1:
            samples.popleft()
        if len(samples) < 2 or now_s - samples[-1][0] > _WINDOW_S / _SAMPLES:
            samples.append((now_s, done))
        else:
            samples[-1] = (samples[-1][0], done)

    def rate(self, now_s: float) -> float:
        """Bytes a second; 0.0 while nothing can be said."""
        if not self._samples:
            return 0.0
        (began_s, first), (_, last) = self._samples[0], self._samples[-1]
        return (last - first) / (now_s - began_s) if now_s - began_s >= _SHORTEST_S else 0.0


def seconds_left(done: int, total: int, rate: float) -> float | None:
    """None while nothing can be said."""
    return max(0.0, (total - done) / rate) if rate > 0 else None


@dataclass(slots=True)
class Blob:
    """One blob of one image. ``total`` and ``done`` in bytes as they come from the source."""

    descriptor: Descriptor
    image: str
    phase: Phase = "waiting"
    done: int = 0
    meter: Meter = field(default_factory=Meter)
    origin: str = ""
    unpacked_size: int = 0

    @property
    def id(self) -> str:
        return self.descriptor.digest.short

    @property
    def total(self) -> int:
        return self.descriptor.size

    @property
    def is_under_way(self) -> bool:
        return self.phase in {"copying", "unpacking"}


class Transfers:
    """Every blob that was heard of, in the order of that."""

    def __init__(self) -> None:
        self.blobs: dict[Key, Blob] = {}
        self._meter = Meter()
        self._moved = 0
        """Bytes that went through, also of tries that failed."""

    def take(self, image: str, event: Event, now_s: float) -> Blob | None:
        """Change what is known; the blob that the event is about, if it is about one."""
        match event:
            case ImageStarted(_, _, blobs):
                for descriptor in blobs:
                    self._known(image, descriptor)
                return None
            case ManifestDone():
                return None
            case BlobStarted() | BlobProgress() | BlobDone() | UnpackStarted() | UnpackDone():
                blob = self._known(image, event.descriptor)
                self._change(blob, event, now_s)
                return blob
            case _:
                assert_never(event)

    def _known(self, image: str, descriptor: Descriptor) -> Blob:
        return self.blobs.setdefault((image, descriptor.digest), Blob(descriptor, image))

    def _change(
        self, blob: Blob, event: BlobStarted | BlobProgress | BlobDone | UnpackStarted | UnpackDone, now_s: float
    ) -> None:
        match event:
            case BlobStarted():
                blob.phase = "copying"
                self._advance(blob, 0, now_s)
            case BlobProgress(_, done):
                self._advance(blob, done, now_s)
            case BlobDone(_, how, origin):
                if how == "copied":
                    self._advance(blob, blob.total, now_s)
                blob.done, blob.origin = blob.total, origin
                if blob.phase not in {"unpacking", "unpacked"}:  # which may begin before this is told
                    blob.phase = how
            case UnpackStarted():
                blob.phase = "unpacking"
            case UnpackDone(_, size):
                blob.phase, blob.unpacked_size = "unpacked", size

    def _advance(self, blob: Blob, done: int, now_s: float) -> None:
        self._moved += max(0, done - blob.done)
        blob.done = done
        blob.meter.add(done, now_s)
        self._meter.add(self._moved, now_s)

    def forget(self, image: str) -> None:
        """An image that is done is counted no longer."""
        for key in [key for key in self.blobs if key[0] == image]:
            del self.blobs[key]

    # All of them

    @property
    def through(self) -> int:
        """How many blobs are there, or on their last way into files."""
        return sum(blob.phase not in {"waiting", "copying"} for blob in self.blobs.values())

    @property
    def done(self) -> int:
        return sum(blob.done for blob in self.blobs.values())

    @property
    def total(self) -> int:
        return sum(blob.total for blob in self.blobs.values())

    def rate(self, now_s: float) -> float:
        return self._meter.rate(now_s)
