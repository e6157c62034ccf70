"""An image of the store and a user's options, run to the end in the foreground.

image → a record with a fresh writable layer → the runner. Record and layer go at the end;
when this process is killed, the next command that looks removes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from image.errors import ContainerNotFound, InvalidInput, ReferenceNotFound
from image.paths import Path
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass, replace
from runner.containers.options import RunOptions
from runner.runtime.privileges import probe
from runner.runtime.state import runtime_directory
from runner.volumes.request import MountRequest, merge
from store.store import Session, Store
from tierce.images import RunnableImage, find, runnable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from runner.containers.attach import UserStdio
    from runner.containers.policy import Policy
    from runner.containers.ready import Ready
    from runner.containers.records import Record, Records
    from runner.containers.start import Container
    from runner.runtime.operations import Operation
    from runner.runtime.privileges import Privileges
    from runner.runtime.spec import Mount
    from runner.volumes.provide import MountPoint

    PullPolicy = Literal["missing", "always", "never"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container takes from where the command runs. ``warn`` gets lines for the user."""

    environ: Mapping[str, str]
    cwd: str
    warn: Callable[[str], None]
    trace: Callable[[Operation], None] | None = None
    stdio: UserStdio | None = None
    """The user's descriptors, where they are not this process's own."""


def choose_image(
    store: Store, word: str, platform: Platform | None, policy: PullPolicy, pull: Callable[[Reference], Reference]
) -> RunnableImage:
    """The image to run, pulled when the policy says so. Raises ReferenceNotFound and what ``pull`` raises.

    ``pull`` gives the name that the image has in the store: a short name may stand for another.
    """
    if policy != "always":
        try:
            return _stored(store, word, platform)
        except ReferenceNotFound:
            if policy != "missing":
                raise
    return _stored(store, str(pull(Reference.parse(word).with_default_tag())), platform)


def _stored(store: Store, word: str, platform: Platform | None) -> RunnableImage:
    return runnable(store.content, find(store.metadata, word).record.target, platform, name=word)


def run(
    store: Store,
    image: RunnableImage,
    options: RunOptions,
    around: Surroundings,
    *,
    policy: Policy,
    image_name: str,
    name: str = "",
    isolation: str = "auto",
    ready: Ready | None = None,
) -> int:
    """Run a container that is removed at its end: its exit code, or 128 + the signal that ended it.

    This process watches it itself, so there is no log, and killing this process ends it.

    Only for the main thread. Raises TierceError when it could not be started
    (``runner.containers.start.exit_status`` has the number), leaving nothing behind.
    """
    from runner.containers.records import Records
    from tierce.containers import create

    privileges = probe(store.root)
    if isolation in {"chroot", "emulated"} or not privileges.contains:
        return _run_plain(store, image, options, around, isolation, policy, image_name, name)
    privileges.require()
    records = Records(store)
    record, lock = create(
        store, image, options, policy, image_name=image_name, name=name, environ=around.environ, cwd=around.cwd,
        attended=True, container_id=ready.container_id if ready is not None else "",
    )  # fmt: skip
    try:
        with _mounted(store, options, image, record.made.layers) as points:
            return _watched(records, record, options, around, privileges, tuple(point.mount for point in points), ready)
    finally:
        records.forget(record)
        os.close(lock)
        store.metadata.leave_open()  # the container's record has come and gone


def _watched(
    records: Records, record: Record, options: RunOptions, around: Surroundings, privileges: Privileges,
    mounts: tuple[Mount, ...], ready: Ready | None,
) -> int:  # fmt: skip
    """From its start to its end, by this process."""
    from runner.containers import foreground  # after the image is there: a pull does not need it
    from runner.containers.attach import OWN_STDIO
    from runner.containers.begin import joined, networking, rootfs
    from runner.containers.events import tell, tell_change
    from runner.containers.records import State

    def started(container: Container) -> None:
        state = State(
            "running", container.pid, started_s=records.clock(), address=container.address,
            ports=tuple(map(str, container.ports)), networks=container.networks, attended=True,
        )  # fmt: skip
        now.append(records.set(record, state))

    def ended(container: Container, code: int) -> None:
        with suppress(ContainerNotFound):  # its networks may have changed
            now.append(records.unsettled(record.id))
        state = replace(
            now[-1].state, status="exited", code=code, finished_s=records.clock(), oom_killed=container.oom_killed
        )
        tell_change(records.journal, now[-1], state)  # nobody looks at the record any more

    now = [record]
    tell(records.journal, record, "attach")
    root = runtime_directory(around.environ, os.geteuid())
    return foreground.run(
        options,
        record.made.config,
        rootfs(records, record, volatile=True),
        container_id=record.id,
        root=root,
        privileges=privileges,
        environ=around.environ,
        cwd=around.cwd,
        warn=around.warn,
        mounts=mounts,
        joined=joined(records, record),
        trace=around.trace,
        stdio=around.stdio or OWN_STDIO,
        network=networking(records, record, root),
        started=started,
        ended=ended,
        ready=ready,
    )


@contextmanager
def _mounted(
    store: Store, options: RunOptions, image: RunnableImage, directories: Sequence[str]
) -> Iterator[tuple[MountPoint, ...]]:
    """What the container mounts besides its root; its anonymous volumes go with it."""
    requests = mount_requests(store, options, image)
    if not requests:
        yield ()
        return
    from runner.volumes.provide import provided, remove_anonymous
    from runner.volumes.volumes import Volumes
    from store.layers import mounted

    volumes = Volumes(store.root)
    with provided(requests, volumes, lambda: mounted(store.layers.overlay(directories))) as points:
        yield points
    remove_anonymous(points, volumes)


def _run_plain(
    store: Store, image: RunnableImage, options: RunOptions, around: Surroundings, isolation: str, policy: Policy,
    image_name: str, name: str,
) -> int:  # fmt: skip
    """By a weaker isolation, because nothing else works here or because it was asked for."""
    import secrets

    from tierce import plain_run
    from tierce.isolation import choose_isolation

    with store.session() as session:
        chosen = choose_isolation(isolation, session)
        assert chosen is not None
        around.warn(str(chosen))
        directories = unpacked(session, image)
        config = image.config.config
        identity = secrets.token_hex(32)
        with plain_run.Told(store.journal, identity, image, options, policy, image_name, name) as told:
            told.code = plain_run.run(
                session, directories, config, options, chosen, around.environ, identity, around.cwd, told.start
            )
            return told.code


def unpacked(session: Session, image: RunnableImage) -> list[str]:
    """The image's layer directories, top first, held by the session."""
    facts = session.store.facts(image.target)
    chain = facts.layers[-1].chain_id if facts.layers else None
    if chain is not None and not session.hold_layers(chain):
        from store.unpacking import ensure_unpacked  # the usual image is unpacked, and start-up counts

        for blob in facts.blobs:
            session.reuse(blob.digest)
        ensure_unpacked(session, facts)
    return [layer.directory for layer in session.store.layers.stack(chain)]


def read_env_file(path: str) -> list[str]:
    """The lines of an ``--env-file``: ``NAME=VALUE`` or ``NAME``, without comments. Raises InvalidInput."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.rstrip("\r\n").lstrip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidInput(f"open {path}: {(why or 'unreadable').lower()}") from error
    kept = [line for line in lines if line and not line.startswith("#")]
    for line in kept:
        name = line.partition("=")[0]
        if not name or any(character.isspace() for character in name):
            raise InvalidInput(f"{path}: invalid environment variable {line[:60]!r}: a name has no blanks")
    return kept


def inline_seccomp(words: Sequence[str]) -> tuple[str, ...]:
    """``--security-opt`` words with the content of a seccomp profile instead of its path. Raises InvalidInput."""
    return tuple(_inline(word) for word in words)


def _inline(word: str) -> str:
    for prefix in ("seccomp=", "seccomp:"):
        path = word.removeprefix(prefix)
        if path != word and path not in ("unconfined", "builtin"):
            try:
                return "seccomp=" + Path(path).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "not UTF-8"
                raise InvalidInput(f"opening seccomp profile {path} failed: {(why or 'unreadable').lower()}") from error
    return word


def mount_requests(store: Store, options: RunOptions, image: RunnableImage) -> tuple[MountRequest, ...]:
    """All that a container of this image mounts. Raises InvalidInput, ContainerNotFound."""
    from runner.containers.records import Records
    from tierce.containers import inherited

    theirs = inherited(Records(store), options.volumes_from) if options.volumes_from else ()
    return merge(options.mounts, inherited=theirs, image=image.config.config.volumes)
