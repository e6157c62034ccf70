"""Every error that Tierce raises on purpose, as one tree.

    TierceError
    ├ InvalidInput       InvalidDigest, InvalidReference, InvalidPlatform,
    │                    InvalidManifest, InvalidConfig, InvalidSpec, InvalidArchive,
    │                    InvalidTemplate(position)
    ├ NotFound           BlobNotFound, ReferenceNotFound, LayerNotFound, ContainerNotFound,
    │                    SourceNotFound, VolumeNotFound
    ├ Conflict           NameInUse, ImageInUse, PortInUse, VolumeInUse
    ├ VerificationError  DigestMismatch, SizeMismatch, PolicyRejected
    ├ DockerfileError    span, hint
    ├ RegistryError      method, url, status, codes, temporary
    ├ KernelError        stage, syscall, errno, path
    ├ StorageError       the store's own files: no space, no permission, damaged
    ├ NotPermitted       this process lacks a right that the work needs
    ├ CommandNotStarted  command, status (126 not executable, 127 not found)
    ├ ContainerNotStarted  status: docker's exit code
    ├ ProcessFailed      argv, status
    └ Cancelled          the user or a sibling's failure stopped the work

A message is one lower-case line without a full stop that says what was attempted on
what. Facts are attributes: callers decide by type and attribute, never by message text.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from image.span import Span


class TierceError(Exception):
    """Base of every deliberate error; ``str()`` is the line a user sees."""


class InvalidInput(TierceError):
    """Something given to us is malformed."""


class InvalidDigest(InvalidInput):
    """Not ``algorithm:encoded`` with a supported algorithm and the right length."""


class InvalidReference(InvalidInput):
    """Not an image name by the distribution grammar."""


class InvalidPlatform(InvalidInput):
    """Not ``os[/architecture[/variant]]``."""


class _InvalidDocument(InvalidInput):
    """A JSON document breaks its schema at ``path``, for example ``layers[2].size``."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{self._what} is invalid at {path or 'top level'}: {problem}")

    _what = "document"


class InvalidManifest(_InvalidDocument):
    """A manifest or index breaks the image-spec."""

    _what = "manifest"


class InvalidConfig(_InvalidDocument):
    """An image configuration breaks the image-spec."""

    _what = "image config"


class InvalidSpec(InvalidConfig):
    """A container's runtime configuration breaks the runtime-spec, or asks for what we cannot do."""

    _what = "runtime config"


class InvalidArchive(InvalidInput):
    """A tar stream is malformed, or tries to write outside its root."""

    def __init__(self, problem: str, *, entry: str | None = None) -> None:
        self.problem = problem
        self.entry = entry
        super().__init__(f"archive entry {entry!r}: {problem}" if entry is not None else f"archive: {problem}")


class InvalidTemplate(InvalidInput):
    """A ``--format`` template can't be parsed, or can't be applied, at ``position`` (line:column)."""

    def __init__(self, position: str, problem: str) -> None:
        self.position = position
        self.problem = problem
        super().__init__(f"template {position}: {problem}" if position else f"template: {problem}")


class NotFound(TierceError):
    """The thing named does not exist."""


class BlobNotFound(NotFound):
    """No blob with this digest in the place that was asked."""


class ReferenceNotFound(NotFound):
    """No image with this name in the place that was asked."""


class LayerNotFound(NotFound):
    """No unpacked layer with this chain id."""


class ContainerNotFound(NotFound):
    """No container with this name or id."""


class VolumeNotFound(NotFound):
    """No volume with this name."""


class SourceNotFound(NotFound):
    """COPY or ADD names a file that its source does not have.

    ``path`` is absolute in the source. ``excluded``: it exists, but the ignore file hides it.
    """

    def __init__(self, path: str, *, excluded: bool = False) -> None:
        self.path = path
        self.excluded = excluded
        super().__init__(f'"{path}": not found')


class Conflict(TierceError):
    """The request contradicts what already exists."""


class NameInUse(Conflict):
    """The name is taken."""


class ImageInUse(Conflict):
    """The image is needed by something else."""


class PortInUse(Conflict):
    """A port of the host to be published is taken."""


class VolumeInUse(Conflict):
    """A container uses the volume."""


class VerificationError(TierceError):
    """Content is not what was promised."""


class DigestMismatch(VerificationError):
    """Bytes hash to ``actual`` where ``expected`` was promised."""

    def __init__(self, expected: object, actual: object, *, what: str = "content") -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(f"{what} has digest {actual}, expected {expected}")


class SizeMismatch(VerificationError):
    """``actual`` bytes were read where ``expected`` were promised."""

    def __init__(self, expected: int, actual: int, *, what: str = "content") -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(f"{what} has {actual} bytes, expected {expected}")


class PolicyRejected(VerificationError):
    """A trust policy refuses the image."""


class DockerfileError(TierceError):
    """A Dockerfile, or what it asks for, is wrong at ``span``; ``hint`` says what to try.

    The message is the bare problem; the command line adds an excerpt of ``source``, the
    lines of the file that ``span`` counts in.
    """

    def __init__(self, message: str, *, span: Span | None = None, hint: str | None = None) -> None:
        self.span = span
        self.hint = hint
        self.source: Sequence[str] = ()
        super().__init__(message)


class RegistryError(TierceError):
    """A registry, or the way to it, failed.

    ``url`` is redacted, ``status`` is 0 when no reply came, ``codes`` are the error
    codes of the reply (distribution-spec, "Error codes") and ``words`` what else it says, safe
    to show. Retry reads ``temporary`` only.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str = "",
        url: str = "",
        status: int = 0,
        codes: Sequence[str] = (),
        words: str = "",
        temporary: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        self.method = method
        self.url = url
        self.status = status
        self.codes = tuple(codes)
        self.words = words
        self.temporary = temporary
        self.retry_after_s = retry_after_s
        super().__init__(message)


class KernelError(TierceError):
    """A system call failed while a sandbox was made or used."""

    def __init__(self, stage: str, syscall: str, errno: int, path: str = "") -> None:
        self.stage = stage
        self.syscall = syscall
        self.errno = errno
        self.path = path
        where = f" on {path}" if path else ""
        super().__init__(f"{stage}: {syscall}{where}: {os.strerror(errno).lower()}")


class StorageError(TierceError):
    """The store could not read or write its own files (full disk, permission, damage)."""


class NotPermitted(TierceError):
    """This process may not do what was asked; the message names the right that is missing."""


class CommandNotStarted(TierceError):
    """A container's command could not be executed; ``status`` is 127 (not found) or 126."""

    def __init__(self, command: str, why: str, status: int) -> None:
        self.command = command
        self.why = why
        self.status = status
        super().__init__(f'cannot start container: exec: "{command}": {why}')


class ContainerNotStarted(TierceError):
    """A container's monitor could not start it; ``status`` is docker's exit code: 125, 126 or 127."""

    def __init__(self, problem: str, status: int) -> None:
        self.status = status
        super().__init__(problem)


class ProcessFailed(TierceError):
    """A process ended with ``status``: its exit code, or 128 + signal."""

    def __init__(self, argv: Sequence[str], status: int) -> None:
        self.argv = tuple(argv)
        self.status = status
        super().__init__(f'process "{" ".join(argv)}" did not complete successfully: exit code: {status}')


class Cancelled(TierceError):
    """The work was stopped on purpose before it ended."""
