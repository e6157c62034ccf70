"""Emulated registries under their real names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.registries import PLAIN, REGISTRIES, Certificate, Emulator, make_certificate
from tests.support.process import need
from tests.support.registry_lab import Lab


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One for all host names of all emulated registries."""
    need("openssl")
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def lab(certificate: Certificate, tmp_path: Path) -> Iterator[Lab]:
    opened = Lab(certificate, tmp_path)
    yield opened
    opened.close()


@pytest.fixture(params=REGISTRIES, ids=lambda behaviour: behaviour.name)
def each(request: pytest.FixtureRequest, lab: Lab) -> Emulator:
    """Every registry of the table, one after the other."""
    return lab.run(request.param)


@pytest.fixture
def plain(lab: Lab) -> Emulator:
    """A registry that follows the specification."""
    return lab.run(PLAIN)
