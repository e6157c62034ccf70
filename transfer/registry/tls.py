"""Whom to trust at the other end, and who to be: certificates for one registry."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from image.errors import InvalidInput


def tls_context(directories: Iterable[Path], *, verify: bool = True) -> ssl.SSLContext:
    """The system's certificates (or SSL_CERT_FILE's), and those in directories such as ``certs.d/host[:port]``.

    ``*.crt`` are authorities; ``X.cert`` with ``X.key`` is who we are to this registry.
    """
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for directory in directories:
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            for path in sorted(directory.iterdir()):
                _load_certificate(context, path)
    return context


def _load_certificate(context: ssl.SSLContext, path: Path) -> None:
    try:
        if path.suffix == ".crt":
            context.load_verify_locations(path)
        elif path.suffix == ".cert":
            context.load_cert_chain(path, path.with_suffix(".key"))
    except (ssl.SSLError, OSError) as error:
        raise InvalidInput(f"read certificate {path}: {error}") from error


def certificate_directories(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where users keep ``host[:port]/ca.crt``, as docker and podman look for it."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    places = (os.path.join(home, "containers"), "/etc/containers", "/etc/docker")
    return tuple(Path(place, "certs.d") for place in places)
