"""From an image of the store and a user's options to a container's record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from image.errors import NameInUse
from image.value import replace
from runner.containers.names import random_name
from runner.containers.options import RunOptions, given_environment
from runner.containers.policy import Policy, check_name, check_policy
from runner.containers.records import Made, Record, Records, State
from runner.volumes.request import MountRequest, inherit, merge
from store.store import Store
from tierce.images import RunnableImage
from tierce.run import unpacked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_ID_BYTES: Final = 32
_ATTEMPTS: Final = 8


def create(
    store: Store,
    image: RunnableImage,
    options: RunOptions,
    policy: Policy,
    *,
    image_name: str,
    name: str,
    environ: Mapping[str, str],
    cwd: str,
    attended: bool = False,
    container_id: str = "",
) -> tuple[Record, int]:
    """A container that has not been started: all that it needs is held from now on.

    An ``attended`` one goes with this process: the descriptor of the lock that says so comes
    with it, else -1; and its anonymous volumes are left for the caller to make. Raises
    NameInUse, InvalidInput.
    """
    check_policy(policy)
    if name:
        check_name(name)
    records = Records(store)
    container_id = container_id or os.urandom(_ID_BYTES).hex()
    wanted = merge(
        options.mounts, inherited=inherited(records, options.volumes_from), image=image.config.config.volumes
    )
    mounts = options.mounts if attended else _named(store, wanted)
    options = replace(options, env=given_environment(options.env, environ), mounts=mounts)
    with store.session() as session:
        layers = tuple(unpacked(session, image))
        workspace = session.workspace(layers[0] if layers else None)
        made = Made(image_name, image.config.config, workspace.directory, layers, cwd, options, policy)
        record = Record(container_id, name, str(image.target.digest), records.clock(), made, State(attended=attended))
        holds = [("directory", workspace.directory)]
        if image.config.diff_ids:
            holds.append(("chain", str(store.facts(image.target).layers[-1].chain_id)))
        return _add(records, record, holds)


def _add(records: Records, record: Record, holds: list[tuple[str, str]]) -> tuple[Record, int]:
    for attempt in range(_ATTEMPTS):
        chosen = replace(record, name=record.name or random_name(attempt))
        try:
            return chosen, records.add(chosen, holds)
        except NameInUse:
            if record.name or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError  # the last attempt returns or raises


def inherited(records: Records, words: Sequence[str]) -> tuple[MountRequest, ...]:
    """The mounts of the containers of ``--volumes-from NAME[:ro|rw]``; an earlier one hides a later one's.

    Raises ContainerNotFound, InvalidInput.
    """
    found: tuple[MountRequest, ...] = ()
    for word in words:
        name, _, mode = word.partition(":")
        found += inherit(records.get(name).made.options.mounts, mode)
    return found


def volume_users(records: Records) -> dict[str, list[str]]:
    """The containers, by id, that name each volume: running or not."""
    users: dict[str, list[str]] = {}
    for record in records.all():
        for request in record.made.options.mounts:
            if request.kind == "volume" and request.source:
                users.setdefault(request.source, []).append(record.id)
    return users


def _named(store: Store, requests: tuple[MountRequest, ...]) -> tuple[MountRequest, ...]:
    """Anonymous volumes are made now, and stay the container's through all its starts."""
    if not any(request.kind == "volume" and not request.source for request in requests):
        return requests
    from runner.volumes.volumes import Volumes

    volumes = Volumes(store.root)
    return tuple(
        replace(request, source=volumes.create(labels=request.labels).name)
        if request.kind == "volume" and not request.source
        else request
        for request in requests
    )
