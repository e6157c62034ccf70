"""What transfer tests share: retries that do not wait, and registries without credentials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from image.platform import Platform
from transfer.copy import CopyOptions
from transfer.credentials import CredentialFiles, Credentials
from transfer.registries import Registries, RegistryOptions
from transfer.registry.client import Repository
from transfer.registry.retry import Retry

QUICK = Retry(attempts=4, first_wait_s=0, longest_wait_s=0, sleep=lambda _seconds: None)
OPTIONS = CopyOptions(Platform("linux", "amd64"), retry=QUICK)

Opener = Callable[..., Repository]


def anonymous_registries(options: RegistryOptions | None = None) -> Registries:
    """Registries for a user who has no credentials and no proxies."""
    nowhere = CredentialFiles((), Path("/nonexistent/config.json"))
    return Registries({}, Credentials(nowhere, {}), options or RegistryOptions())
