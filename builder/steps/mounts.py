"""``RUN --mount``: what each kind becomes in the sandbox, and that nothing of it stays.

Secrets and copies of stages are mounted in a mount namespace of the step's own, which the
sandbox inherits: a secret lives in memory there, never on a disk, and goes with the process.

Spec: dockerfile.md 1.6.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Self, assert_never

from builder.dockerfile.ignore import NOTHING
from builder.dockerfile.mounts import (
    MAX_SECRET,
    BindMount,
    CacheMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from builder.entries import EntryKind, Stop
from builder.graph import RunCommand
from builder.ports import HostMount, MemoryMount, RemoteCache
from builder.results import Files, Result, Rootfs
from builder.steps.place import Destination, Placing
from builder.tree import Tree
from image.errors import Cancelled, InvalidInput, NotFound
from image.value import dataclass
from store.cache_mounts import CacheMounts, Sharing, mount_key
from store.failed_steps import FailedMount
from store.layers import LayerStore
from store.linux.mounts import MNT_DETACH, MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, umount2
from store.owners import owners

_SHARINGS: Final[Mapping[str, Sharing]] = {"shared": "shared", "private": "private", "locked": "locked"}


AUTHORITIES_TARGET: Final = "/run/tierce/ca-certificates.crt"
AUTHORITIES_VARIABLES: Final = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
)  # fmt: skip
"""Where OpenSSL, requests, pip, node, curl and git look for the certificates they trust."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the sandbox gets: mounts, and environment that no key or history knows."""

    mounts: tuple[HostMount | MemoryMount, ...]
    env: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MountSources:
    """What mounts need from outside the graph.

    ``secrets`` gives a secret's value by id, ``agents`` the path of an SSH agent's socket.
    ``authorities`` is a bundle of certificates that every step is to trust, ``volumes`` are
    files of the host that every step sees. ``remotes`` may have what another build left of a
    cache mount.
    """

    caches: CacheMounts
    secrets: Mapping[str, Callable[[], bytes]]
    agents: Mapping[str, Path]
    authorities: Path | None = None
    remotes: tuple[RemoteCache, ...] = ()
    volumes: tuple[HostMount, ...] = ()

    @property
    def everywhere(self) -> Prepared:
        """What every step gets, whatever its Dockerfile says. No key or history knows of it."""
        if self.authorities is None:
            return Prepared(self.volumes, ())
        mount = HostMount(self.authorities, AUTHORITIES_TARGET, read_only=True)
        env = tuple(f"{name}={AUTHORITIES_TARGET}" for name in AUTHORITIES_VARIABLES)
        return Prepared((*self.volumes, mount), env)


class MountPreparation:
    """The mounts of one RUN. A context manager, entered inside ``in_private_mounts``.

    ``scratch`` is an empty directory beside the layer that is made.
    """

    def __init__(self, layers: LayerStore, sources: MountSources, scratch: Path, cancelled: Callable[[], bool]) -> None:
        self._layers = layers
        self._sources = sources
        self._scratch = scratch
        self._cancelled = cancelled
        self._stack = ExitStack()
        self._copies = ExitStack()
        self._copied_to: dict[str, Path] = {}
        self._made = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._copies.close()
        with suppress(OSError):  # not there, or with copies that are kept
            self._scratch.rmdir()

    def prepare(self, operation: RunCommand, others: Sequence[Result]) -> Prepared:
        """Raises NotFound for a secret or agent that is required and not given; InvalidInput."""
        mounts: list[HostMount | MemoryMount] = []
        env: list[str] = []
        for step_mount in operation.mounts:
            source = None if step_mount.input is None else others[step_mount.input]
            match step_mount.mount:
                case BindMount() as bind:
                    assert source is not None
                    mounts.append(self._bind(bind, source))
                case CacheMount() as cache:
                    mounts.append(self._cache(cache, source))
                case TmpfsMount() as tmpfs:
                    mounts.append(MemoryMount(tmpfs.target, tmpfs.size or None))
                case SecretMount() as secret:
                    self._secret(secret, mounts, env)
                case SshMount() as ssh:
                    self._ssh(ssh, mounts, env, operation)
                case _:
                    assert_never(step_mount.mount)
        return Prepared(tuple(mounts), tuple(env))

    def _stop(self) -> None:
        if self._cancelled():
            raise Cancelled("the build was cancelled")

    def keep(self, operation: RunCommand, others: Sequence[Result]) -> tuple[FailedMount, ...]:
        """How to have these mounts again when all this is gone; copies of files stay where they are.

        Waits for the layers of stages.
        """
        self._copies.pop_all()
        return tuple(self._kept(operation, others))

    def _kept(self, operation: RunCommand, others: Sequence[Result]) -> Iterator[FailedMount]:
        for step_mount in operation.mounts:
            source = None if step_mount.input is None else others[step_mount.input]
            match step_mount.mount:
                case BindMount() as bind if bind.target in self._copied_to:
                    copy = self._copied_to[bind.target].relative_to(self._scratch.parent)
                    yield FailedMount(bind.target, copy=str(copy), read_only=bind.read_only)
                case BindMount() as bind:
                    assert isinstance(source, Rootfs)
                    stack = source.stack.result()
                    chain = str(stack[-1].chain_id) if stack else ""
                    yield FailedMount(bind.target, source=bind.source, chain=chain, read_only=bind.read_only)
                case CacheMount() as cache:
                    yield FailedMount(
                        cache.target, id=_cache_name(cache, source), mode=cache.mode, uid=cache.uid, gid=cache.gid,
                        read_only=cache.read_only,
                    )  # fmt: skip
                case TmpfsMount() as tmpfs:
                    yield FailedMount(tmpfs.target)
                case SecretMount() | SshMount():
                    pass
                case _:
                    assert_never(step_mount.mount)

    def _directory(self) -> Path:
        self._made += 1
        path = self._scratch / f"mount{self._made}"
        path.mkdir(parents=True)
        return path

    def _mount_point(self) -> Path:
        """A directory to mount on, taken away when the step ends."""
        path = self._directory()

        def remove() -> None:
            try:
                umount2(os.fsencode(path), MNT_DETACH)
            finally:
                path.rmdir()

        self._stack.callback(remove)
        return path

    def _bind(self, bind: BindMount, source: Result) -> HostMount:
        """A stage's files by an overlay, the context's by a copy: ignored files must not be there."""
        match source:
            case Files():
                with source.context.open() as tree:
                    place = self._copied(tree, bind)
            case Rootfs() if self._layers.trees.mounts:
                place = self._merged(source, bind.source, writable=not bind.read_only)
            case Rootfs():  # what a step writes there is thrown away just the same
                with self._layers.trees.opened(source.directories) as fd:
                    place = self._copied(Tree(fd), bind)
        return HostMount(place, bind.target, read_only=bind.read_only)

    def _copied(self, tree: Tree, bind: BindMount) -> Path:
        place = self._directory()
        self._copies.callback(shutil.rmtree, place, ignore_errors=True)
        found = self._copied_to[bind.target] = _copy_selection(tree, bind.source, place, self._stop)
        return found

    def _merged(self, source: Rootfs, path: str, *, writable: bool) -> Path:
        overlay = self._layers.overlay(source.directories)
        point = self._mount_point()
        options = overlay.options
        if writable:
            upper, work = self._directory(), self._directory()
            self._stack.callback(shutil.rmtree, upper, ignore_errors=True)
            self._stack.callback(shutil.rmtree, work, ignore_errors=True)
            options += b",upperdir=" + os.fsencode(upper) + b",workdir=" + os.fsencode(work)
        os.chdir(overlay.base)
        mount(b"overlay", os.fsencode(point), b"overlay", 0, options)
        return point / _resolved(point, path)

    def _cache(self, cache: CacheMount, source: Result | None) -> HostMount:
        def fill(path: Path) -> None:
            match source:
                case Files():
                    with source.context.open() as tree:
                        _copy_selection(tree, cache.source, path, self._stop)
                case Rootfs():
                    with self._layers.trees.opened(source.directories) as fd:
                        _copy_selection(Tree(fd), cache.source, path, self._stop)
                case None:
                    key = mount_key(cache.id, mode=cache.mode, uid=cache.uid, gid=cache.gid)
                    any(remote.fill_mount(key, path) for remote in self._sources.remotes)

        path = self._stack.enter_context(
            self._sources.caches.acquire(
                _cache_name(cache, source), _SHARINGS[cache.sharing], mode=cache.mode, uid=cache.uid, gid=cache.gid,
                fill=fill, cancelled=self._cancelled,
            )
        )  # fmt: skip
        inside = path if source is not None else path / _resolved(path, cache.source)
        return HostMount(inside, cache.target, read_only=cache.read_only)

    def _secret(self, secret: SecretMount, mounts: list[HostMount | MemoryMount], env: list[str]) -> None:
        give = self._sources.secrets.get(secret.id)
        if give is None:
            if secret.required:
                raise NotFound(f"secret {secret.id}: not found: give it with --secret id={secret.id}")
            return
        value = give()
        if len(value) > MAX_SECRET:
            raise InvalidInput(f"secret {secret.id} is larger than {MAX_SECRET} bytes")
        if secret.env:
            env.append(f"{secret.env}={value.decode('utf-8', 'surrogateescape')}")
        if secret.target:
            mounts.append(HostMount(self._in_memory(secret, value), secret.target, read_only=True))

    def _in_memory(self, secret: SecretMount, value: bytes) -> Path:
        if self._layers.trees.mounts:
            point = self._mount_point()
            flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
            mount(b"tmpfs", os.fsencode(point), b"tmpfs", flags, b"mode=700")
        else:  # on the disk then, but for this step alone
            point = self._directory()
            self._stack.callback(shutil.rmtree, point, ignore_errors=True)
        path = point / "secret"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, value)
            owners().own(fd, secret.uid, secret.gid)
            os.fchmod(fd, secret.mode)
        finally:
            os.close(fd)
        return path

    def _ssh(self, ssh: SshMount, mounts: list[HostMount | MemoryMount], env: list[str], operation: RunCommand) -> None:
        socket = self._sources.agents.get(ssh.id)
        if socket is None:
            if ssh.required:
                raise NotFound(f"ssh agent {ssh.id}: not found: give it with --ssh {ssh.id}")
            return
        from builder.steps.agents import forwarded  # few steps want one

        place = self._directory()
        self._stack.callback(place.rmdir)
        own = self._stack.enter_context(forwarded(socket, ssh, place))
        mounts.append(HostMount(own, ssh.target, read_only=False))
        names = {item.partition("=")[0] for item in (*operation.env, *env)}
        if "SSH_AUTH_SOCK" not in names:
            env.append(f"SSH_AUTH_SOCK={ssh.target}")


def _cache_name(cache: CacheMount, source: Result | None) -> str:
    """What tells caches apart, besides owner and mode: where the first content came from counts as well."""
    if source is None:
        return cache.id
    key = source.key[:12] if isinstance(source, Rootfs) else source.key
    return f"{cache.id} from {key} {cache.source}"


def _resolved(directory: Path, path: str) -> str:
    """``path`` inside a directory, links followed so that they stay inside it. Raises SourceNotFound."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return Tree(fd).resolve(path)
    finally:
        os.close(fd)


def _copy_selection(tree: Tree, path: str, place: Path, stop: Stop) -> Path:
    """Copy a file, or a directory's contents, to ``place``; where the copy is."""
    resolved = tree.resolve(path)
    entry = tree.entry(resolved)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Placing(tree, Destination(fd), None, None, stop=stop) as placing:
            if entry is not None and entry.kind is EntryKind.DIRECTORY:
                placing.contents(resolved, "", NOTHING)
                return place
            name = resolved.rpartition("/")[2]
            placing.file(resolved, name, NOTHING)
            return place / name
    finally:
        os.close(fd)
