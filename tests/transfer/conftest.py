"""Fixtures of the transfer tests: a registry that misbehaves, and clients that do not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.store import Store
from tests.support.fake_registry import FakeRegistry, fake_registry
from tests.support.transfers import QUICK, Opener, anonymous_registries
from transfer.registries import Registries
from transfer.registry.challenge import ANONYMOUS, Authorizer, Credential
from transfer.registry.client import Repository
from transfer.registry.pace import Pace
from transfer.registry.transport import Timeouts, Transport


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def open_repository(fake: FakeRegistry) -> Iterator[Opener]:
    """Opens a repository of the fake registry; retries do not wait."""
    transports = []

    def opener(
        path: str = "app",
        *,
        push: bool = False,
        credential: Credential = ANONYMOUS,
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] = lambda: 1000.0,
    ) -> Repository:
        transport = Transport({}, timeouts=timeouts or Timeouts(), pace=Pace(0))
        transports.append(transport)
        authorizer = Authorizer(fake.host, transport, credential, clock=clock)
        return Repository(path, authorizer, transport, actions=("pull", "push") if push else ("pull",), retry=QUICK)

    yield opener
    for transport in transports:
        transport.close()


@pytest.fixture
def registries() -> Iterator[Registries]:
    """Registries without any credentials."""
    with anonymous_registries() as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened
