"""What a transport offers: a ``Source`` of an image, a ``Sink`` for one. Any source meets any sink.

A source gives manifests as the bytes they are and blobs as streams that verify
themselves; a sink takes blobs first, then manifests, children before their index, and
makes the image visible in ``commit`` alone. Leaving a sink's context without a commit
leaves the destination as it was (a registry may keep blobs that nothing names).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol, Self

from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.manifest import Index, Manifest
from image.reference import Reference

if TYPE_CHECKING:
    from types import TracebackType

Block = bytes | memoryview
"""Bytes of a blob. Valid until the next block is asked for: copy what must last longer."""

Blocks = Iterator[Block]

Adopted = Literal["skipped", "mounted"]


class _Endpoint(Protocol):
    @property
    def name(self) -> str:
        """As a user would write it, for messages."""

    @property
    def holds_indexes(self) -> bool:
        """Whether an index is something this transport can hold."""

    def abort(self) -> None:
        """Wake every thread that waits for this transport; what it was doing raises Cancelled."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class Source(_Endpoint, Protocol):
    """One image to read, by any number of threads."""

    @property
    def repository(self) -> Reference | None:
        """The registry repository it comes from, where a sink may mount blobs across."""

    @property
    def synthesized(self) -> bool:
        """Whether the manifest was made up by us (an archive that has none), so no digest is lost by changing it."""

    def root(self) -> Descriptor:
        """The manifest or index that the name stands for. Raises ReferenceNotFound."""

    def manifest(self, descriptor: Descriptor, /) -> Manifest | Index:
        """A document of this image, verified. Raises NotFound, VerificationError, InvalidManifest."""

    def open_blob(self, descriptor: Descriptor, /) -> AbstractContextManager[Blocks]:
        """A blob as blocks. They end without an error only after size and digest were right.

        Raises BlobNotFound, SizeMismatch, DigestMismatch; RegistryError when the way broke.
        """

    def check_blob(self, descriptor: Descriptor, /) -> None:
        """Find out that a blob is there, as cheaply as can be relied on: a registry is asked, a file is read.

        Raises BlobNotFound, SizeMismatch, DigestMismatch, RegistryError.
        """


class Sink(_Endpoint, Protocol):
    """A place for one image. Blobs may come from several threads, up to ``concurrency``."""

    @property
    def concurrency(self) -> int:
        """How many blobs it can take at once."""

    @property
    def prefers_compressed(self) -> bool:
        """Whether layers that a source holds uncompressed should be compressed on the way."""

    @property
    def keeps_manifests(self) -> bool:
        """Whether a manifest stays as it is here; where not, only the configuration and the layers' files do."""

    @property
    def required_digest(self) -> Digest | None:
        """The digest that the image must have here, where the destination's name says one."""

    def begin(self, manifest: Manifest, /) -> None:
        """An image whose blobs follow: its config first, then its layers."""

    def find_layer(self, diff_id: DiffID, /) -> Descriptor | None:
        """A compressed blob of this layer that the sink has already."""

    def adopt(self, blob: Descriptor, repository: Reference | None, /) -> Adopted | None:
        """Have the blob without its bytes: it is there, or can be mounted from ``repository``."""

    def put_blob(self, blob: Descriptor, blocks: Blocks, /) -> None:
        """Take a blob whose identity is known. May be called again after a failure."""

    def put_new_blob(self, media_type: str, blocks: Blocks, /) -> Descriptor:
        """Take a blob whose identity is known at its end."""

    def has_manifest(self, descriptor: Descriptor, /) -> bool:
        """Whether this manifest and all that it needs is there."""

    def put_manifest(self, descriptor: Descriptor, manifest: Manifest | Index, /) -> None:
        """Take a child of an index; its blobs and children are there."""

    def commit(self, descriptor: Descriptor, manifest: Manifest | Index, /) -> None:
        """Take the image itself and make it visible under its name."""
