"""The volumes of a store, laid out as docker's.

    <root>/volumes/NAME/_data         the files
    <root>/volumes/NAME/volume.json   labels, options, when it was made
    <root>/volumes/NAME/lock          shared by who uses it now, exclusive to remove it
    <root>/volumes/NAME/fill          exclusive while an image's files are copied in
    <root>/volumes/.lock              exclusive while a volume appears or goes

A volume appears and goes by one rename. What is left of a killed process has a name that
starts with a dot and is removed by the next change.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from image.errors import Conflict, InvalidInput, StorageError, VolumeInUse, VolumeNotFound
from image.value import dataclass
from runner.volumes.names import anonymous_name, check_name
from store.content import replace_file, storage_errors
from store.journal import Journal
from store.locks import Alone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.volumes.request import Pairs

DRIVER: Final = "local"
ANONYMOUS_LABEL: Final = "com.docker.volume.anonymous"
_OPTIONS: Final = frozenset({"type", "o", "device"})


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume. ``path`` is its own directory, ``created`` RFC 3339."""

    name: str
    path: Path
    created: str
    labels: Pairs = ()
    options: Pairs = ()

    @property
    def data(self) -> str:
        """Where its files are: docker's Mountpoint."""
        return f"{self.path}/_data"

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in dict(self.labels)


class Volumes:
    """All volumes below ``root``, which any number of processes share."""

    def __init__(self, root: Path) -> None:
        self.base = root / "volumes"
        self._journal = Journal(root)

    def create(self, name: str = "", *, driver: str = "", options: Pairs = (), labels: Pairs = ()) -> Volume:
        """Make a volume, or return the one that has the name already. Without a name it is anonymous.

        Raises InvalidInput, Conflict when it exists with other options, StorageError.
        """
        if driver not in ("", DRIVER):
            raise InvalidInput(
                f"create volume {name or '(anonymous)'}: volume driver {driver!r} is not supported, use local"
            )
        _check_options(options)
        chosen = check_name(name) if name else anonymous_name()
        marked = labels if name else (*labels, (ANONYMOUS_LABEL, ""))
        with storage_errors(f"create volume {chosen}"):
            found = self._find(chosen)
            if found is None:
                with self._changing():
                    found = self._find(chosen) or self._make(
                        Volume(chosen, self.base / chosen, _now(), marked, options)
                    )
        if options and dict(options) != dict(found.options):
            raise Conflict(f"create volume {chosen}: it exists with other options: remove it first")
        return found

    def get(self, name: str) -> Volume:
        """Raises VolumeNotFound."""
        found = self._find(name) if "/" not in name and not name.startswith(".") and name else None
        if found is None:
            raise VolumeNotFound(f"no such volume: {name}")
        return found

    def all(self) -> list[Volume]:
        """Every volume, by name. Raises StorageError."""
        with storage_errors(f"list the volumes in {self.base}"):
            names = sorted(os.listdir(self.base)) if self.base.is_dir() else []
        return [found for name in names if not name.startswith(".") and (found := self._find(name)) is not None]

    def remove(self, name: str, users: Collection[str] = ()) -> None:
        """Remove a volume with its files. ``users`` are the containers that name it.

        Raises VolumeNotFound, VolumeInUse, StorageError.
        """
        volume = self.get(name)
        if users:
            raise VolumeInUse(f"remove {name}: volume is in use - [{', '.join(sorted(users))}]")
        with storage_errors(f"remove volume {name}"), self._changing():
            lock = _lock(volume, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock is None:
                raise VolumeInUse(f"remove {name}: volume is in use by a container that runs or starts")
            gone = self.base / f".gone-{secrets.token_hex(8)}"
            try:
                os.rename(volume.path, gone)
            except FileNotFoundError:
                raise VolumeNotFound(f"no such volume: {name}") from None
            finally:
                os.close(lock)
        self._journal.write("volume", "destroy", name, {"driver": DRIVER})
        shutil.rmtree(gone, ignore_errors=True)
        if gone.exists():
            raise StorageError(f"remove volume {name}: some of its files in {gone} cannot be deleted")

    def in_use(self, volume: Volume) -> bool:
        """Whether a process holds it now."""
        try:
            lock = _lock(volume, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        if lock is None:
            return True
        os.close(lock)
        return False

    def hold(self, volume: Volume) -> int:
        """A descriptor that keeps the volume from being removed until it is closed, by whatever end.

        Raises VolumeNotFound when it has been removed meanwhile.
        """
        with storage_errors(f"use volume {volume.name}"):
            try:
                fd = _lock(volume, fcntl.LOCK_SH)
            except FileNotFoundError:
                raise VolumeNotFound(f"no such volume: {volume.name}") from None
        assert fd is not None  # a blocking lock
        if not _same(fd, volume.path / "lock"):
            os.close(fd)
            raise VolumeNotFound(f"no such volume: {volume.name}")
        return fd

    @contextmanager
    def filling(self, volume: Volume) -> Iterator[None]:
        """Alone to put the first files into the volume."""
        with Alone(volume.path / "fill"):
            yield

    def _find(self, name: str) -> Volume | None:
        path = self.base / name
        try:
            with open(path / "volume.json", "rb") as file:
                facts = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise StorageError(f"read volume {name}: {path / 'volume.json'} is damaged: {error}") from error
        return Volume(name, path, str(facts["CreatedAt"]), _pairs(facts, "Labels"), _pairs(facts, "Options"))

    def _make(self, volume: Volume) -> Volume:
        new = self.base / f".new-{secrets.token_hex(8)}"
        new.mkdir(mode=0o701)
        (new / "_data").mkdir()
        (new / "_data").chmod(0o755)
        for name in ("lock", "fill"):
            (new / name).touch(mode=0o600)
        facts = {"CreatedAt": volume.created, "Labels": dict(volume.labels), "Options": dict(volume.options)}
        replace_file(new / "volume.json", json.dumps(facts).encode())
        os.rename(new, volume.path)
        self._journal.write("volume", "create", volume.name, {"driver": DRIVER})
        return volume

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self.base.mkdir(mode=0o711, parents=True, exist_ok=True)
        with Alone(self.base / ".lock"):
            for name in os.listdir(self.base):
                if name.startswith((".new-", ".gone-")):
                    shutil.rmtree(self.base / name, ignore_errors=True)
            yield


def _check_options(options: Pairs) -> None:
    """Docker's local driver mounts what these say. Raises InvalidInput."""
    unknown = next((key for key, _ in options if key not in _OPTIONS), None)
    if unknown is not None:
        raise InvalidInput(f"invalid option {unknown!r} of a local volume: there are type, o and device")
    given = dict(options)
    if given and not (given.get("type") and given.get("device")):
        raise InvalidInput("invalid options of a local volume: type and device are both needed")


def _lock(volume: Volume, kind: int) -> int | None:
    """A locked descriptor, or None when ``kind`` does not wait and somebody else has it."""
    fd = os.open(volume.path / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, kind)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _pairs(facts: Mapping[str, Any], key: str) -> Pairs:
    return tuple((str(name), str(value)) for name, value in (facts.get(key) or {}).items())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
