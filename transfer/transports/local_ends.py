"""What sources and sinks on this machine have in common: they wait for nobody."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.manifest import Manifest
from image.reference import Reference
from transfer.ports import Blocks

if TYPE_CHECKING:
    from types import TracebackType


class LocalEnd:
    """A context manager without anything to close, and an ``abort`` without anybody to wake."""

    def abort(self) -> None:
        """Nothing here waits."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass


class LocalSource(LocalEnd, ABC):
    """A source whose blobs nobody can mount, with manifests of its own."""

    repository: Reference | None = None
    synthesized = False

    @abstractmethod
    def open_blob(self, descriptor: Descriptor, /) -> AbstractContextManager[Blocks]: ...

    def check_blob(self, descriptor: Descriptor, /) -> None:
        """By reading it."""
        with self.open_blob(descriptor) as blocks:
            for _ in blocks:
                pass


class LocalSink(LocalEnd):
    """A sink that prepares nothing and knows nothing but blobs by digest."""

    prefers_compressed = True
    keeps_manifests = True
    required_digest: Digest | None = None

    def begin(self, _manifest: Manifest, /) -> None:
        """Nothing to prepare."""

    def find_layer(self, _diff_id: DiffID, /) -> Descriptor | None:
        return None

    def has_manifest(self, _descriptor: Descriptor, /) -> bool:
        return False
