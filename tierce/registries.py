"""Registries as the user's files describe them: credentials, mirrors, certificates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from image.value import replace

if TYPE_CHECKING:
    from transfer.credentials import Credentials
    from transfer.registries import Registries, RegistryOptions


def user_credentials(environ: Mapping[str, str], authfile: str | None = None) -> Credentials:
    """The credentials of the user whose environment this is. Raises InvalidInput for a broken registries.conf."""
    from transfer.credentials import Credentials, credential_files
    from transfer.registries_conf.files import registries_conf

    return Credentials(credential_files(environ, authfile), environ, registries_conf(environ).credential_helpers)


def user_registries(
    environ: Mapping[str, str],
    options: RegistryOptions | None = None,
    authfile: str | None = None,
    *,
    destination: bool = False,
    warn: Callable[[str], None] = lambda _text: None,
) -> Registries:
    """Connections by the user's configuration; ``options.conf`` is read here. Raises InvalidInput.

    A ``destination`` has no mirrors: what is read there is a check of what was pushed.
    """
    from transfer.credentials import Credentials, credential_files
    from transfer.registries import Registries, RegistryOptions
    from transfer.registries_conf.files import registries_conf

    conf = registries_conf(environ)
    if destination:
        conf = conf.without_redirection()
    credentials = Credentials(credential_files(environ, authfile), environ, conf.credential_helpers)
    return Registries(environ, credentials, replace(options or RegistryOptions(), conf=conf), warn=warn)
