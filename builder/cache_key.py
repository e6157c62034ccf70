"""What makes two steps the same, so that the result of one serves the other. Pure.

A key covers the operation, the key of the base, and the *content* of what is read from
elsewhere. Not covered: file times, host paths, names of stages, proxy settings, secrets.
With a source date epoch, layers are written with clamped times and in bytes that no processor
changes, so the epoch is covered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, assert_never

from builder.dockerfile.mounts import BindMount, CacheMount, Mount, SecretMount, SshMount, TmpfsMount
from builder.graph import (
    CopyFiles,
    FromContext,
    FromGit,
    FromImage,
    FromScratch,
    FromUrl,
    MakeDirectory,
    Operation,
    RunCommand,
)
from image.digest import ChainID

_VERSION: Final = "tierce-1"
"""Change it when the meaning of a step changes, and old results no longer serve."""


def image_key(chain_id: ChainID | None) -> str:
    """The key of an image's root filesystem: its content."""
    return _hash("image", str(chain_id) if chain_id else "")


def step_key(operation: Operation, base: str | None, contents: Sequence[str], *, epoch_s: int | None) -> str:
    """The key of a step on a base with key ``base``.

    ``contents`` are the checksums of what is read from each of the step's other inputs.
    """
    clamp = "" if epoch_s is None else f"portable, epoch {epoch_s}"
    return _hash(_VERSION, repr(_keyed(operation)), base or "", *contents, clamp)


def stacked_key(base: str, layer: str) -> str:
    """The key of a root filesystem that is a layer made apart, with key ``layer``, on a base."""
    return _hash("stacked", base, layer)


def definition_key(key: str, others: Sequence[str]) -> str:
    """A key by where the content comes from, known before it is read.

    ``key`` is the step's key without contents, ``others`` the keys of its other inputs.
    """
    return _hash("definition", key, *others)


def _keyed(operation: Operation) -> tuple[object, ...]:
    match operation:
        case RunCommand():
            return (
                "run", operation.args, operation.env, operation.cwd, operation.user,
                operation.network, operation.script, tuple(_keyed_mount(mount.mount) for mount in operation.mounts),
                operation.hostname, operation.security,
            )  # fmt: skip
        case CopyFiles():
            inline = tuple((file.name, hashlib.sha256(file.content).hexdigest()) for file in operation.inline)
            return (
                "copy", operation.sources, operation.dest, inline, operation.chown, operation.chmod,
                operation.excludes, operation.parents, operation.from_context, operation.unpack,
                operation.inputs, operation.unpack_downloads, operation.link,
            )  # fmt: skip
        case MakeDirectory():
            return ("mkdir", operation.path, operation.user)
        case FromScratch():
            return ("scratch",)
        case FromImage():
            return ("image", str(operation.manifest))
        case FromContext():
            return ("context", operation.name)
        case FromUrl():
            return ("download", operation.source.url)
        case FromGit():
            return ("git", operation.source)


def _keyed_mount(mount: Mount) -> tuple[object, ...]:
    """What of a mount makes another step. A cache's content and a secret's value do not."""
    match mount:
        case BindMount():
            return ("bind", mount.target, mount.source, mount.read_only)
        case CacheMount():
            return ("cache", mount.target, mount.read_only)
        case TmpfsMount():
            return ("tmpfs", mount.target)
        case SecretMount():
            return ("secret", mount.id, mount.target, mount.env)
        case SshMount():
            return ("ssh", mount.id, mount.target)
        case _:
            assert_never(mount)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
