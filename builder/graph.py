"""The build as values: a content-addressed graph of steps.

A step says what is done to its ``base`` (the root filesystem so far), reading from
``others`` (contexts, stages, images). Equal operations on equal inputs are the same step,
so a stage that two others share is done once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

from builder.dockerfile.instructions import InlineFile, Script
from builder.dockerfile.mounts import Mount
from builder.dockerfile.remotes import GitSource, UrlSource
from image.config import ContainerConfig, ImageConfig
from image.descriptor import Descriptor
from image.digest import Digest
from image.platform import Platform
from image.reference import Reference
from image.span import Span
from image.value import dataclass, field

Network = Literal["default", "none", "host"]
Security = Literal["sandbox", "insecure"]


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An image that a stage starts from. ``layers`` are its blobs, bottom to top."""

    reference: Reference
    manifest: Descriptor
    config: ImageConfig
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class FromScratch:
    """An empty root filesystem."""


@dataclass(frozen=True, slots=True)
class FromImage:
    """The root filesystem of an image."""

    image: BaseImage = field(repr=False)
    manifest: Digest


@dataclass(frozen=True, slots=True)
class FromContext:
    """Files the user gave; ``name`` tells which, "" the main build context."""

    name: str


@dataclass(frozen=True, slots=True)
class FromUrl:
    """A file to download, which must have the digest ``checksum`` if there is one."""

    source: UrlSource
    checksum: Digest | None = None


@dataclass(frozen=True, slots=True)
class FromGit:
    """The files of a commit. Which one is asked when the graph is solved."""

    source: GitSource


@dataclass(frozen=True, slots=True)
class StepMount:
    """A ``RUN --mount`` with an absolute target; ``input`` is which of ``others`` it reads from."""

    mount: Mount
    input: int | None = None


@dataclass(frozen=True, slots=True)
class RunCommand:
    """A process in a sandbox. ``env`` holds every ENV and ARG that it sees, in order.

    ``unkeyed_env`` is seen too, but does not make another step (proxy settings).
    ``script`` is a heredoc that is the program itself, mounted while the process runs.
    ``hostname`` is "" for the sandbox's own. ``security`` "insecure" lifts what keeps it from the host.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    network: Network = "default"
    script: Script | None = None
    mounts: tuple[StepMount, ...] = ()
    hostname: str = ""
    security: Security = "sandbox"
    unkeyed_env: tuple[str, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class CopyFiles:
    """``sources`` of ``others`` and ``inline`` files to ``dest``.

    ``inputs`` tells for each source which of ``others`` has it; () means the first for all.
    ``dest`` is absolute and keeps a trailing slash. ``chown`` and ``chmod`` are as written,
    expanded. ``from_context`` files are owned by root unless ``chown`` says otherwise;
    files of stages and images keep their owners. ``unpack`` extracts local archives (ADD),
    ``unpack_downloads`` those behind URLs. ``link`` copies onto an empty root instead of the
    base, so the layer fits on any base.
    """

    sources: tuple[str, ...]
    dest: str
    inline: tuple[InlineFile, ...] = ()
    chown: str | None = None
    chmod: str | None = None
    excludes: tuple[str, ...] = ()
    parents: bool = False
    from_context: bool = True
    unpack: bool = False
    inputs: tuple[int, ...] = ()
    unpack_downloads: bool = False
    link: bool = False

    def patterns(self, position: int) -> tuple[str, ...]:
        """The sources that ``others[position]`` has."""
        if not self.inputs:
            return self.sources if position == 0 else ()
        return tuple(source for source, at in zip(self.sources, self.inputs, strict=True) if at == position)


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """A directory that must exist; missing ones are made 0755, owned by ``user``."""

    path: str
    user: str


Operation = FromScratch | FromImage | FromContext | FromUrl | FromGit | RunCommand | CopyFiles | MakeDirectory


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One node. ``id`` is the hash of the operation and the inputs' ids.

    ``name`` is what progress shows; ``fresh`` means that the build cache must not serve it.
    """

    id: str
    operation: Operation
    base: Step | None
    others: tuple[Step, ...]
    name: str
    span: Span | None
    fresh: bool = False

    @property
    def inputs(self) -> tuple[Step, ...]:
        return (self.base, *self.others) if self.base else self.others

    @property
    def platform(self) -> Platform | None:
        """The platform of the image at the bottom of its base; None above an empty root filesystem."""
        step: Step | None = self
        while step is not None:
            if isinstance(step.operation, FromImage):
                return step.operation.image.config.platform
            step = step.base
        return None

    @classmethod
    def make(
        cls,
        operation: Operation,
        base: Step | None = None,
        others: tuple[Step, ...] = (),
        *,
        name: str,
        span: Span | None = None,
        fresh: bool = False,
    ) -> Step:
        content = "\0".join((repr(operation), base.id if base else "", *(other.id for other in others)))
        return cls(hashlib.sha256(content.encode()).hexdigest(), operation, base, others, name, span, fresh)


@dataclass(frozen=True, slots=True)
class HistoryPlan:
    """A history entry to be; ``step`` made its layer, None for an empty one."""

    created_by: str
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """What to build: the ``target`` step's root filesystem with this configuration."""

    target: Step
    platform: Platform
    base: BaseImage | None
    config: ContainerConfig
    history: tuple[HistoryPlan, ...]
    author: str = ""


def inputs_first(target: Step) -> Iterator[Step]:
    """Every step the target needs, and the target last."""
    seen: set[str] = set()
    stack: list[tuple[Step, bool]] = [(target, False)]
    while stack:
        step, ready = stack.pop()
        if ready:
            yield step
        elif step.id not in seen:
            seen.add(step.id)
            stack.append((step, True))
            stack.extend((needed, False) for needed in reversed(step.inputs))
