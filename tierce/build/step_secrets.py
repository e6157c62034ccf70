"""``--secret`` and ``--ssh``: what the user lends to steps that ask for it.

Both are looked at before anything is built, so that what is missing is missed at once; a
value is read when a step asks.

Spec: dockerfile.md 5, "Credentials".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from image.errors import InvalidInput, NotFound


def parse_secrets(words: Iterable[str], environ: Mapping[str, str]) -> dict[str, Callable[[], bytes]]:
    """``--secret id=x[,src=FILE|,env=NAME][,type=file|env]``: who gives each value, when asked.

    Without src and env, the environment's variable of that name wins over a file of that name.
    A file has to be there from the start, even if no step asks for it. Raises InvalidInput, NotFound.
    """
    secrets: dict[str, Callable[[], bytes]] = {}
    for word in words:
        fields = dict(part.partition("=")[::2] for part in word.split(","))
        unknown = fields.keys() - {"id", "src", "source", "env", "type"}
        if unknown or not fields.get("id"):
            raise InvalidInput(f"invalid secret {word!r}: want id=NAME with src=FILE or env=NAME")
        name, kind = fields["id"], fields.get("type", "")
        variable = fields.get("env") or (name if kind == "env" or (not kind and name in environ) else "")
        path = fields.get("src") or fields.get("source")
        if variable and not path:
            secrets[name] = partial(_from_environment, name, variable, environ)
        else:
            secrets[name] = _from_file(name, Path(path or name))
    return secrets


def _from_environment(secret: str, variable: str, environ: Mapping[str, str]) -> bytes:
    if variable not in environ:
        raise NotFound(f"secret {secret}: environment variable {variable} is not set")
    return os.fsencode(environ[variable])


def _from_file(secret: str, path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        from builder.dockerfile.mounts import MAX_SECRET

        with _secret_errors(secret, path), path.open("rb") as file:
            return file.read(MAX_SECRET + 1)  # a larger one is refused where it is used

    with _secret_errors(secret, path):
        path.stat()  # a pipe's content can be read only once: not now
    return read


@contextmanager
def _secret_errors(secret: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotFound(f"secret {secret}: read {path}: {(error.strerror or '').lower()}") from error


def parse_agents(words: Iterable[str], environ: Mapping[str, str]) -> dict[str, Path]:
    """``--ssh default`` (the running agent) or ``--ssh ID=SOCKET``. Raises InvalidInput."""
    agents: dict[str, Path] = {}
    for word in words:
        name, _, path = word.partition("=")
        socket = path or environ.get("SSH_AUTH_SOCK", "")
        if not socket:
            raise InvalidInput(
                f"invalid ssh agent {word!r}: SSH_AUTH_SOCK is not set: start ssh-agent, or name a socket"
            )
        if not Path(socket).is_socket():
            raise InvalidInput(f"invalid ssh agent {word!r}: {socket} is not a socket: add keys to ssh-agent instead")
        agents[name] = Path(socket)
    return agents
