"""What a build needs open while it runs, by its flags: sources, images, sandbox, caches, a view."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from image.value import dataclass
from tierce.build.base_images import RememberedImages, StoredImages
from tierce.build.building import Connections, host_authorities
from tierce.build.contexts import ContextSources, Named
from tierce.build.layout_images import LayoutImages
from tierce.build.network import Network
from tierce.build.sandbox import RunnerSandbox
from tierce.build.step_secrets import parse_agents, parse_secrets
from tierce.cli.build_cache import open_caches, open_connections
from tierce.cli.build_progress import View, make_view
from tierce.cli.output import echo
from tierce.isolation import choose_isolation

if TYPE_CHECKING:
    from store.store import Session
    from tierce.build.cache import OpenedCache
    from tierce.cli.build_flags import BuildFlags
    from tierce.cli.command import Settings
    from transfer.registries import Registries


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the build's inputs come from. ``open_session`` opens the store when it is first needed."""

    open_session: Callable[[], Session]
    network: Network
    contexts: ContextSources
    secrets: Mapping[str, Callable[[], bytes]]
    agents: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class World:
    """A build's session and all that it is connected to."""

    session: Session
    connections: Connections
    images: RememberedImages
    registries: Callable[[], Registries]
    caches: Sequence[OpenedCache]
    view: View


def open_sources(stack: ExitStack, settings: Settings, flags: BuildFlags) -> Sources:
    """Raises InvalidInput for a bad ``--secret`` or ``--ssh``, NotFound for a secret's file that is not there."""
    secrets = parse_secrets(flags.secret, settings.environ)
    agents = parse_agents(flags.ssh, settings.environ)
    open_session = cache(lambda: stack.enter_context(stack.enter_context(settings.store()).session()))
    network = stack.enter_context(Network(open_session, settings.environ, secrets, agents, tls_verify=flags.tls_verify))
    contexts = ContextSources(open_session, network, network, sys.stdin.buffer)
    return Sources(open_session, network, contexts, secrets, agents)


def open_world(stack: ExitStack, settings: Settings, flags: BuildFlags, sources: Sources, named: Named) -> World:
    """Raises StorageError, InvalidInput, NotFound for ``--host-ca`` without a bundle."""
    authorities = host_authorities(settings.environ) if flags.host_ca else None
    options, volumes = flags.step_options(), flags.volumes()
    session = sources.open_session()
    mode = "quiet" if flags.quiet or flags.graph else flags.progress
    view = stack.enter_context(make_view(mode, sys.stderr, settings.environ, settings.clock))
    isolation = choose_isolation(flags.isolation, session)
    if isolation is not None:
        echo(str(isolation), err=True)
    sandbox = stack.enter_context(RunnerSandbox(settings.environ, options, isolation))
    stored = StoredImages(session.store, session, settings.environ, flags.access(), pull=flags.pull_policy)
    images = RememberedImages(LayoutImages(stored, session, named.layouts) if named.layouts else stored)
    registries = stack.enter_context(open_connections(settings, flags))
    caches = stack.enter_context(open_caches(flags, session, registries, view))
    connections = Connections(
        images, sandbox, view, settings.clock, sources.secrets, sources.agents, authorities, volumes, caches,
        downloads=sources.network, repositories=sources.network,
    )  # fmt: skip
    return World(session, connections, images, registries, caches, view)
