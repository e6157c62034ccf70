"""What a build needs from its siblings; ``tierce`` hands the real ones in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Final, Literal, Protocol

from builder.dockerfile.remotes import GitSource
from builder.graph import BaseImage, Network
from image.descriptor import Descriptor
from image.digest import ChainID, Digest
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass
from store.layers import OverlayMount
from store.metadata import CacheRecord
from store.store import Session

Stream = Literal["stdout", "stderr"]


class BaseImages(Protocol):
    """Where FROM and ``--from`` find images."""

    def resolve(self, reference: Reference, platform: Platform) -> BaseImage:
        """The image's documents, from the store or a registry. Raises ReferenceNotFound, RegistryError."""

    def unpack(self, session: Session, image: BaseImage) -> ChainID | None:
        """Its layers, unpacked and held by ``session``; None for an image without layers."""


@dataclass(frozen=True, slots=True)
class HostMount:
    """A path of the host inside the sandbox."""

    source: Path
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class MemoryMount:
    """A tmpfs. ``size`` in bytes, None for the kernel's default."""

    target: str
    size: int | None


DEFAULT_HOSTNAME: Final = "tierce-build"


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """One process of a build in a fresh sandbox. ``user`` as in a Dockerfile.

    ``insecure`` gives it every capability and device, and lifts filter and masks.
    """

    rootfs: OverlayMount | Path
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    network: Network
    mounts: tuple[HostMount | MemoryMount, ...] = ()
    hostname: str = DEFAULT_HOSTNAME
    insecure: bool = False


class Sandbox(Protocol):
    """Runs a process so that it touches nothing but its root filesystem and mounts."""

    @property
    def options(self) -> str:
        """What every process has beside its request (hosts, memory, ulimits…), to be had again by hand; or ""."""

    def prepare(self) -> None:
        """Have ready what all processes share. Asked before each ``run``, from a thread that has the build's own mounts."""

    def run(self, request: SandboxRequest, output: Callable[[Stream, bytes], None], cancelled: Event) -> int:
        """The exit status, or 128 + signal. Ends the process when ``cancelled`` is set.

        Raises KernelError when the sandbox can't be made.
        """


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file of a web server, as a blob of the store. ``modified_s`` is its Last-Modified, or 0."""

    blob: Descriptor
    modified_s: int


class Downloads(Protocol):
    """Files behind URLs. What it gives is held by the build's session. Used by several threads."""

    def known(self, url: str, checksum: Digest | None) -> Downloaded | None:
        """What an earlier build downloaded, if it is that still: by its ``checksum``, or as the server says."""

    def fetch(self, url: str, checksum: Digest | None) -> Downloaded:
        """Download a file, or find that it has not changed.

        Raises RegistryError, with a message that names the URL; DigestMismatch; StorageError; Cancelled.
        """

    def abort(self) -> None:
        """Wake every thread that is in here; it raises Cancelled."""


class Repositories(Protocol):
    """Git repositories. Used by several threads."""

    def commit(self, source: GitSource) -> str:
        """Which commit a source is at, by asking its server. Raises NotFound, RegistryError."""

    def check_out(self, source: GitSource, commit: str) -> Path:
        """The files of a commit, fetched if no earlier build did; they last as long as the session.

        Raises RegistryError, StorageError, Cancelled.
        """

    def abort(self) -> None:
        """End what runs; it raises Cancelled."""


class RemoteCache(Protocol):
    """Results of steps that another build left somewhere: in a registry, in a directory, in an image."""

    def find(self, key: str) -> CacheRecord | None:
        """The record under a key, if its blob can be had. Moves no blob."""

    def fetch(self, session: Session, blob: Descriptor) -> None:
        """Put the blob of a record into the store, held by ``session``.

        Raises BlobNotFound, VerificationError, RegistryError.
        """

    def abort(self) -> None:
        """Let what is being fetched end at once, with Cancelled."""

    def fill_mount(self, name: str, directory: Path) -> bool:
        """Put what was exported of a cache mount into an empty directory; False when nothing was.

        ``name`` is ``store.cache_mounts.mount_key``. Raises as ``fetch``.
        """
