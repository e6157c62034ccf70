"""An image of the store and a user's options, run to the end in the foreground.

image → layers, unpacked if they are not yet → a fresh writable layer → the runner. The
container's layer goes away with the session, also when this process is killed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

from image.errors import InvalidInput, ReferenceNotFound
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass
from runner.containers.options import RunOptions
from runner.network.modes import NetworkMode
from runner.network.wishes import resolve, running
from runner.runtime.privileges import probe
from runner.runtime.state import check_id, runtime_directory
from store.store import Session, Store
from tierce.images import RunnableImage, find, runnable

if TYPE_CHECKING:
    from runner.runtime.operations import Operation

PullPolicy = Literal["missing", "always", "never"]
_ID_BYTES: Final = 32
_HOST_NAME_LENGTH: Final = 12


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container takes from where the command runs. ``warn`` gets lines for the user."""

    environ: Mapping[str, str]
    cwd: str
    warn: Callable[[str], None]
    trace: Callable[[Operation], None] | None = None


def choose_image(
    store: Store, word: str, platform: Platform | None, policy: PullPolicy, pull: Callable[[Reference], None]
) -> RunnableImage:
    """The image to run, pulled when the policy says so. Raises ReferenceNotFound and what ``pull`` raises."""
    if policy == "always":
        pull(Reference.parse(word).with_default_tag())
    try:
        return _stored(store, word, platform)
    except ReferenceNotFound:
        if policy != "missing":
            raise
    pull(Reference.parse(word).with_default_tag())
    return _stored(store, word, platform)


def _stored(store: Store, word: str, platform: Platform | None) -> RunnableImage:
    return runnable(store.content, find(store.metadata, word).record.target, platform, name=word)


def run(store: Store, image: RunnableImage, options: RunOptions, around: Surroundings, *, name: str = "") -> int:
    """Run a container of the image: its exit code, or 128 + the signal that ended it.

    Only for the main thread. Raises TierceError when it could not be started
    (``runner.containers.foreground.exit_status`` has the number), leaving nothing behind.
    """
    from runner.containers import foreground  # after the image is there: a pull does not need it

    privileges = probe()
    privileges.require()
    identity = secrets.token_hex(_ID_BYTES)
    if name and not options.hostname:
        options = with_hostname(options, identity[:_HOST_NAME_LENGTH])
    root = runtime_directory(around.environ, os.geteuid())
    network = resolve(
        options.network,
        defined=store.root / "networks",
        root=root,
        container=identity,
        name=name,
        find_container=lambda word: running(root, word),
    )
    with store.session() as session:
        directories = _unpacked(session, image)
        workspace = session.workspace(directories[0] if directories else None)
        return foreground.run(
            options,
            image.config.config,
            store.layers.overlay(directories, workspace, volatile=True),
            container_id=check_id(name or identity),
            root=root,
            privileges=privileges,
            environ=around.environ,
            cwd=around.cwd,
            warn=around.warn,
            trace=around.trace,
            network=network,
        )


def with_hostname(options: RunOptions, hostname: str) -> RunOptions:
    """A host name of its own, except where the host's is shared."""
    from dataclasses import replace

    return options if options.network.mode is NetworkMode.HOST else replace(options, hostname=hostname)


def _unpacked(session: Session, image: RunnableImage) -> list[str]:
    """The image's layer directories, top first, held by the session."""
    facts = session.store.facts(image.target)
    chain = facts.layers[-1].chain_id if facts.layers else None
    if chain is not None and not session.hold_layers(chain):
        from store.unpacking import ensure_unpacked  # the usual image is unpacked, and start-up counts

        for blob in facts.blobs:
            session.reuse(blob.digest)
        ensure_unpacked(session, facts)
    return [layer.directory for layer in session.store.layers.stack(chain)]


def parse_mount(text: str) -> tuple[Literal["bind", "tmpfs"], str]:
    """``--mount``'s ``type=bind,src=...,dst=...[,readonly]`` as ``-v`` or ``--tmpfs`` would say it.

    A source that is absent is an error here, as docker has it. Raises InvalidInput.
    """
    fields = {key: value if equals else "true" for key, equals, value in (w.partition("=") for w in text.split(","))}
    kind = fields.pop("type", "volume")
    source = _first(fields, "source", "src")
    target = _first(fields, "destination", "dst", "target")
    if not target:
        raise InvalidInput(f"invalid mount {text!r}: the target is missing")
    read_only = _first(fields, "readonly", "ro") in {"true", "1"}
    if kind == "tmpfs":
        sizes = {"tmpfs-size": "size", "tmpfs-mode": "mode"}
        words = [f"{sizes[key]}={fields.pop(key)}" for key in list(fields) if key in sizes]
        _refuse(text, fields)
        return "tmpfs", ":".join(filter(None, (target, ",".join(words + (["ro"] if read_only else [])))))
    if kind != "bind":
        raise InvalidInput(f"invalid mount {text!r}: type {kind!r} is not supported, use bind or tmpfs")
    propagation = fields.pop("bind-propagation", "")
    _refuse(text, fields)
    if not os.path.exists(source):
        raise InvalidInput(f"invalid mount {text!r}: bind source path does not exist: {source}")
    words = [word for word in ("ro" if read_only else "", propagation) if word]
    return "bind", ":".join(filter(None, (os.path.abspath(source), target, ",".join(words))))


def _first(fields: dict[str, str], *names: str) -> str:
    found = [fields.pop(name) for name in names if name in fields]
    return found[0] if found else ""


def _refuse(text: str, fields: Mapping[str, str]) -> None:
    if fields:
        raise InvalidInput(f"invalid mount {text!r}: {next(iter(fields))!r} is not supported")


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


def security_options(words: Sequence[str]) -> bool:
    """Whether ``--security-opt`` asks for no new privileges. Raises InvalidInput for what else it asks."""
    wanted = False
    for word in words:
        key, _, value = word.replace(":", "=", 1).partition("=")
        if key != "no-new-privileges" or value not in {"", "true", "false"}:
            raise InvalidInput(f"security option {word!r} is not supported: there is no-new-privileges")
        wanted = value != "false"
    return wanted
