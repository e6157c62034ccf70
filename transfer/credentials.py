"""Who the user is at each registry: docker's and podman's files, and credential helpers.

A look-up goes through the files in order; the first that knows the registry decides.
Within a file: ``credHelpers``, then ``credsStore``, then ``auths`` (repository, namespace,
host). Secrets are never printed, and never leave this module but as a
``Credential``.

Spec: docker ``config.json`` and credential helper protocol; containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from image.errors import InvalidInput, StorageError
from image.reference import DEFAULT_DOMAIN
from image.value import dataclass
from transfer.credential_helpers import CredentialHelpers
from transfer.registries_conf.values import AUTH_FILES
from transfer.registry.credential import Credential

_HUB_KEY: Final = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class CredentialFiles:
    """``read`` in order of precedence; ``write`` is where ``login`` stores."""

    read: tuple[Path, ...]
    write: Path


def credential_files(
    environ: Mapping[str, str], authfile: str | None = None, run: str = "/run/containers"
) -> CredentialFiles:
    """The files that docker and podman users have, by the environment.

    ``authfile`` (``--authfile``) or REGISTRY_AUTH_FILE stands alone; DOCKER_CONFIG, where
    set, comes before podman's places, because a user who sets it means it.
    """
    alone = authfile or environ.get("REGISTRY_AUTH_FILE")
    if alone:
        return CredentialFiles((Path(alone),), Path(alone))
    home = environ.get("HOME", "/")
    docker = Path(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")
    runtime = environ.get("XDG_RUNTIME_DIR")
    config = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    podman = [Path(place, "containers", "auth.json") for place in (runtime, config) if place]
    if not runtime and os.access(own := f"{run}/{os.getuid()}/auth.json", os.R_OK):
        podman.insert(0, Path(own))  # where podman writes outside of a login session
    if environ.get("DOCKER_CONFIG"):
        return CredentialFiles((docker, *podman), docker)
    return CredentialFiles((*podman, docker), docker)


class Credentials:
    """Look-up, login and logout over a user's files. ``environ`` is what helpers run with.

    ``helpers`` are those of registries.conf, in order; AUTH_FILES among them stands for the files.
    """

    def __init__(
        self, files: CredentialFiles, environ: Mapping[str, str], helpers: Sequence[str] = (AUTH_FILES,)
    ) -> None:
        self._files = files
        self._environ = environ
        self._helpers = helpers
        self._programs = CredentialHelpers(environ)

    def find(self, domain: str, path: str = "") -> Credential | None:
        """The credential for a repository of a registry; None when no file knows one.

        Raises InvalidInput for a broken file, and when a helper fails.
        """
        inline = self._environ.get("DOCKER_AUTH_CONFIG")
        if inline:
            found = self._look_up(decode(inline.encode(), "DOCKER_AUTH_CONFIG"), domain, path)
            if found:
                return found
        for helper in self._helpers:
            found = self._in_files(domain, path) if helper == AUTH_FILES else self._from_store(helper, domain)
            if found:
                return found
        return None

    def _in_files(self, domain: str, path: str) -> Credential | None:
        for file in self._files.read:
            if found := self._look_up(_read(file), domain, path):
                return found
        return None

    def _look_up(self, document: dict[str, Any], domain: str, path: str) -> Credential | None:
        helpers = _mapping(document, "credHelpers")
        for key in _host_keys(domain):
            if isinstance(helper := helpers.get(key), str) and helper:
                return self._programs.get(helper, key)
        store = _store_of(document, domain)
        return (self._from_store(store, domain) if store else None) or _from_auths(
            _mapping(document, "auths"), domain, path
        )

    def _from_store(self, helper: str, domain: str) -> Credential | None:
        """What a helper knows that keeps passwords of all registries."""
        for key in _helper_keys(domain):
            if found := self._programs.get(helper, key):
                return found
        return None

    # Login and logout

    def login(self, domain: str, credential: Credential) -> str:
        """Store a credential; says where. Other entries and unknown keys stay as they are."""
        key = _storage_key(domain)
        if self._helpers and self._helpers[0] != AUTH_FILES:
            self._programs.store(self._helpers[0], key, credential)
            return f"credential helper {self._helpers[0]}"
        file = self._login_file(domain)
        with _locked(file):
            document = _read(file)
            helper = _mapping(document, "credHelpers").get(key) or _store_of(document, domain)
            auths = _mapping(document, "auths")
            if isinstance(helper, str) and helper:
                self._programs.store(helper, key, credential)
                document["auths"] = {**auths, key: {}}
            else:
                document["auths"] = {**auths, key: _encode_entry(credential)}
            _write(file, document)
        return f"credential helper {helper}" if helper else str(file)

    def _login_file(self, domain: str) -> Path:
        """Where ``login`` stores: in a file that has an older password and would be read first."""
        for file in self._files.read:
            if file == self._files.write:
                break
            if _keys_of(_mapping(_read(file), "auths"), domain):
                return file
        return self._files.write

    def logout(self, domain: str) -> bool:
        """Forget a registry in every file that we read, and in helpers; False when none knew it."""
        known = [self._forget(file, domain) for file in self._files.read]
        known += [self._erase(helper, (_storage_key(domain),)) for helper in self._helpers if helper != AUTH_FILES]
        return any(known)

    def logout_everywhere(self) -> int:
        """Forget all registries and repositories that the files name; how many these were."""
        named = {_normalized(key) for file in self._files.read for key in _named(_read(file))}
        for domain in {key.partition("/")[0] for key in named}:
            self.logout(domain)
        for file in self._files.read:
            if _mapping(_read(file), "auths"):
                with _locked(file):
                    _write(file, {**_read(file), "auths": {}})
        return len(named)

    def _forget(self, file: Path, domain: str) -> bool:
        if not file.exists():
            return False
        with _locked(file):
            document = _read(file)
            auths, helpers = _mapping(document, "auths"), _mapping(document, "credHelpers")
            keys = _keys_of(auths, domain)
            helper = next((helpers[k] for k in _host_keys(domain) if k in helpers), _store_of(document, domain))
            erased = isinstance(helper, str) and self._erase(helper, keys or (_storage_key(domain),))
            if keys:
                document["auths"] = {key: value for key, value in auths.items() if key not in keys}
                _write(file, document)
        return bool(keys) or erased

    def _erase(self, helper: str, keys: Sequence[str]) -> bool:
        erased = [self._programs.erase(helper, key) for key in keys] if helper else []
        return any(erased)


# Keys


def _host_keys(domain: str) -> tuple[str, ...]:
    """How files and helpers may call a registry, most usual first."""
    if domain == DEFAULT_DOMAIN:
        return (_HUB_KEY, "index.docker.io", "docker.io", "registry-1.docker.io")
    return (domain, f"https://{domain}", f"https://{domain}/v1/", f"https://{domain}/v2/", f"http://{domain}")


def _helper_keys(domain: str) -> tuple[str, ...]:
    """How docker and podman name a registry to a helper: each question is a process."""
    return (_HUB_KEY, "docker.io") if domain == DEFAULT_DOMAIN else (domain, f"https://{domain}")


def _keys_of(auths: Mapping[str, Any], domain: str) -> list[str]:
    """The keys of a file that mean the host as a whole."""
    return [key for key in auths if _normalized(key) == domain]


def _named(document: Mapping[str, Any]) -> list[str]:
    """All registries and repositories that a file has passwords for, or knows a helper for."""
    return [*_mapping(document, "auths"), *_mapping(document, "credHelpers")]


def _store_of(document: Mapping[str, Any], domain: str) -> str:
    """The helper for all registries; "" when there is none. An empty ``credHelpers`` entry means the file itself."""
    if any(key in _mapping(document, "credHelpers") for key in _host_keys(domain)):
        return ""
    store = document.get("credsStore")
    return store if isinstance(store, str) else ""


def _storage_key(domain: str) -> str:
    return _HUB_KEY if domain == DEFAULT_DOMAIN else domain


def _normalized(key: str) -> str:
    """``host`` or ``host/repository`` for whatever URL form a file has."""
    bare = re.sub(r"^https?://", "", key).rstrip("/")
    host = re.sub(r"/v[12]$", "", bare)
    return re.sub(r"^(?:index|registry-1)\.docker\.io(?=/|$)", "docker.io", host)


def _from_auths(auths: Mapping[str, Any], domain: str, path: str) -> Credential | None:
    """The longest key that is the repository, one of its namespaces, or the host."""
    entries = {_normalized(key): entry for key, entry in reversed(list(auths.items())) if isinstance(entry, dict)}
    parts = path.split("/") if path else []
    for length in range(len(parts), -1, -1):
        entry = entries.get("/".join((domain, *parts[:length])))
        if entry is not None and (found := _decode_entry(entry)):
            return found
    return None


def _encode_entry(credential: Credential) -> dict[str, str]:
    entry: dict[str, str] = {}
    if credential.username:
        entry["auth"] = base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()
    if credential.identity_token:
        entry["identitytoken"] = credential.identity_token
    return entry


def _decode_entry(entry: Mapping[str, Any]) -> Credential | None:
    def text(key: str) -> str:
        value = entry.get(key)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if auth := text("auth"):
        try:
            username, _, password = (
                base64.b64decode("".join(auth.split()), validate=True).decode().rstrip("\0").partition(":")
            )
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidInput("read credentials: an auth entry is not base64 of user:password") from error
    found = Credential(username, password, text("identitytoken"), text("registrytoken"))
    return found if found != Credential() else None


# Files


def decode(data: bytes, name: str) -> dict[str, Any]:
    """Raises InvalidInput that does not repeat the content."""
    try:
        document = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise InvalidInput(f"read credentials from {name}: not valid JSON") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"read credentials from {name}: not a JSON object")
    return document


def _read(file: Path) -> dict[str, Any]:
    try:
        return decode(file.read_bytes(), str(file))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InvalidInput(f"read credentials from {file}: {(error.strerror or '').lower()}") from error


def _mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Two logins at once must not lose one: the file's directory is the lock."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"store credentials in {file}: {(error.strerror or '').lower()}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write(file: Path, document: Mapping[str, Any]) -> None:
    """Replace the file whole, readable by its owner alone. A symbolic link's target is replaced."""
    target = Path(os.path.realpath(file))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as out:
                out.write(json.dumps(document, indent="\t").encode() + b"\n")
                out.flush()
                os.fsync(out.fileno())
            os.rename(temporary, target)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise StorageError(f"store credentials in {file}: {(error.strerror or '').lower()}") from error


def parse_login(text: str) -> Credential:
    """``user:password`` or ``user``, as in ``--creds``. Raises InvalidInput."""
    username, _, password = text.partition(":")
    if not username:
        raise InvalidInput("--creds: want user:password")
    return Credential(username, password)
