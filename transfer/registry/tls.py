"""Whom to trust at the other end, and who to be: certificates for one registry."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

from image.errors import InvalidInput


def tls_context(directories: Sequence[Path], *, verify: bool = True, must_exist: bool = False) -> ssl.SSLContext:
    """The system's certificates (or SSL_CERT_FILE's), and those of the first of the directories that exists.

    ``*.crt`` are authorities; ``X.cert`` with ``X.key`` is who we are to this registry.

    Raises InvalidInput for a file that can't be used. Spec: containers-certs.d(5).
    """
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    files = next((listed for place in directories if (listed := _listed(place)) is not None), None)
    if files is None and must_exist:
        raise InvalidInput(f"read certificates in {directories[0]}: no such directory, or no permission")
    for path in files or ():
        _load_certificate(context, path)
    return context


def _listed(directory: Path) -> list[Path] | None:
    """None when there is no such directory, or it is not for us: another may be."""
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


def _load_certificate(context: ssl.SSLContext, path: Path) -> None:
    def refuse() -> str:
        raise InvalidInput(f"read certificate {path}: its key is encrypted, and there is nobody to ask for a password")

    try:
        if path.suffix == ".crt":
            context.load_verify_locations(path)
        elif path.suffix == ".cert":
            if not path.with_suffix(".key").exists():
                raise InvalidInput(
                    f"read certificate {path}: {path.stem}.key is missing (an authority's name ends in .crt)"
                )
            context.load_cert_chain(path, path.with_suffix(".key"), refuse)
        elif path.suffix == ".key" and not path.with_suffix(".cert").exists():
            raise InvalidInput(f"read certificate key {path}: {path.stem}.cert is missing")
    except ssl.SSLError as error:
        what = error.reason.replace("_", " ").lower() if error.reason else "not a certificate in PEM form"
        raise InvalidInput(f"read certificate {path}: {what}") from error
    except OSError as error:
        raise InvalidInput(f"read certificate {path}: {(error.strerror or str(error)).lower()}") from error


def certificate_directories(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where users keep ``host[:port]/ca.crt``, as docker and podman look for it."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    places = (os.path.join(home, "containers"), "/etc/containers", "/etc/docker")
    return tuple(Path(place, "certs.d") for place in places)
