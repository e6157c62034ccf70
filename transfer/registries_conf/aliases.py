"""What users chose that short names mean: ``short-name-aliases.conf``, which podman writes and reads too."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from image.errors import StorageError
from image.reference import Reference
from transfer.registries_conf.files import conf_files


def remember(short: Reference, full: Reference, environ: Mapping[str, str], uid: int) -> Path:
    """Write down that a short name means a full one, without their tags; the file that says so now.

    It is replaced whole, under the lock that podman takes. Raises StorageError, InvalidInput for a
    file that is malformed.
    """
    files = conf_files(environ).aliases
    own, machines = files
    path = next((file for file in files if file.exists()), machines if uid == 0 else own)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path):
            _write(path, {**_read(path), short.familiar_repository: full.repository})
    except OSError as error:
        raise StorageError(f"write {path}: {(error.strerror or str(error)).lower()}") from error
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f"{path.name}.lock").open("ab") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> Mapping[str, str]:
    from transfer.registries_conf.decode import decode

    try:
        return decode(path.read_text(encoding="utf-8"), str(path), drop_in=True).aliases
    except FileNotFoundError:
        return {}


def _write(path: Path, aliases: Mapping[str, str]) -> None:
    """Names of images need no quoting in TOML's strings."""
    text = "[aliases]\n" + "".join(f'  "{name}" = "{full}"\n' for name, full in sorted(aliases.items()))
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
