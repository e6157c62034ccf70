"""Which files there are, and one ``RegistriesConf`` from all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from image.errors import InvalidInput
from image.value import dataclass, replace
from transfer.registries_conf.values import AUTH_FILES, RegistriesConf

_SYSTEM: Final = Path("/etc/containers")
_CACHED_ALIASES: Final = "containers/short-name-aliases.conf"
_MAX_SIZE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ConfFiles:
    """``main`` must exist when it was ``chosen``. ``aliases`` are short names that podman's users have chosen."""

    main: Path
    chosen: bool = False
    drop_ins: tuple[Path, ...] = ()
    """Directories; the files in each go by name, later ones win."""
    aliases: tuple[Path, ...] = ()
    """The first that exists counts."""


def conf_files(environ: Mapping[str, str], system: Path = _SYSTEM) -> ConfFiles:
    """Where podman looks. A user's file stands in for the system's and its drop-ins.

    CONTAINERS_REGISTRIES_CONF, or REGISTRIES_CONFIG_PATH, names another main file.
    """
    home = environ.get("HOME", "/")
    own = Path(environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "containers")
    cache = Path(environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"))
    aliases = (cache / _CACHED_ALIASES, Path("/var/cache", _CACHED_ALIASES))
    both = (system / "registries.conf.d", own / "registries.conf.d")
    if chosen := environ.get("CONTAINERS_REGISTRIES_CONF") or environ.get("REGISTRIES_CONFIG_PATH"):
        return ConfFiles(Path(chosen), True, both, aliases)
    if (own / "registries.conf").exists():
        return ConfFiles(own / "registries.conf", False, both[1:], aliases)
    return ConfFiles(system / "registries.conf", False, both, aliases)


def load(files: ConfFiles) -> RegistriesConf:
    """The configuration that the files give together; a machine without files has the default.

    Raises InvalidInput, with file and line, for a malformed file.
    """
    conf = RegistriesConf()
    main = _read(files.main, must_exist=files.chosen)
    if main is not None:
        conf = _joined(conf, main, files.main, drop_in=False)
    for path in _drop_ins(files.drop_ins):
        if (text := _read(path)) is not None:
            conf = _joined(conf, text, path, drop_in=True)
    cached = next(((path, text) for path in files.aliases if (text := _read(path, may_see=False)) is not None), None)
    if cached is not None:
        conf = _joined(conf, cached[1], cached[0], drop_in=True)
    return conf


def registries_conf(environ: Mapping[str, str]) -> RegistriesConf:
    """The configuration of the user whose environment this is."""
    return load(conf_files(environ))


def _joined(conf: RegistriesConf, text: str, path: Path, *, drop_in: bool) -> RegistriesConf:
    """What was known, and over it what a file says: rules by prefix, aliases by name, the rest whole."""
    from transfer.registries_conf.decode import decode  # most machines have no file, and need no TOML

    says = decode(text, str(path), drop_in=drop_in)
    rules = {rule.prefix: rule for rule in conf.rules} | {rule.prefix: rule for rule in reversed(says.rules)}
    aliases = {name: full for name, full in {**conf.aliases, **says.aliases}.items() if full}
    conf = replace(conf, rules=tuple(rules.values()), aliases=aliases)
    if says.search is not None:
        conf = replace(conf, search=says.search, search_file=str(path))
    if says.short_name_mode is not None:
        conf = replace(conf, short_name_mode=says.short_name_mode)
    if says.credential_helpers is not None:
        conf = replace(conf, credential_helpers=says.credential_helpers or (AUTH_FILES,))
    return conf


def _drop_ins(directories: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for directory in directories:
        try:
            names = sorted(entry.name for entry in os.scandir(directory) if entry.name.endswith(".conf"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InvalidInput(f"read {directory}: {(error.strerror or '').lower()}") from error
        found += [directory / name for name in names if not (directory / name).is_dir()]
    return found


def _read(path: Path, *, must_exist: bool = False, may_see: bool = True) -> str | None:
    """A file's text, None when there is no such file (or, unless ``may_see``, when it is not for us)."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        absent = isinstance(error, (FileNotFoundError, NotADirectoryError)) and not must_exist
        if absent or (isinstance(error, PermissionError) and not may_see):
            return None
        raise InvalidInput(f"read {path}: {(error.strerror or '').lower()}") from error
    if len(data) > _MAX_SIZE:
        raise InvalidInput(f"read {path}: larger than {_MAX_SIZE} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"read {path}:{line}: not UTF-8") from error
