"""Programs that keep passwords: ``docker-credential-NAME`` with get, store and erase.

Spec: docker/docker-credential-helpers, "Development".
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from image.errors import InvalidInput
from transfer.registry.credential import Credential

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+\Z")
_TIMEOUT_S: Final = 60.0
_KEPT_S: Final = 300.0
_MAX_REPLY: Final = 1 << 20
_ABSENT: Final = "credentials not found in native keychain"
_TOKEN: Final = "<token>"  # noqa: S105 - the user name that says the secret is an identity token


class CredentialHelpers:
    """Runs helpers with ``environ``, without a shell. A reply is kept for five minutes of ``clock`` seconds.

    A helper that takes longer than ``timeout_s`` is killed. Nothing of what one prints gets
    into an error, as it may be the secret. Raises InvalidInput.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        timeout_s: float = _TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environ = environ
        self._timeout_s = timeout_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[float, Credential | None]] = {}

    def get(self, helper: str, server: str) -> Credential | None:
        """What the helper knows of a server; None when it knows nothing. One process at a time."""
        with self._lock:
            kept = self._kept.get((helper, server))
            if kept is None or kept[0] <= self._clock():
                kept = self._kept[helper, server] = (self._clock() + _KEPT_S, self._ask(helper, server))
            return kept[1]

    def _ask(self, helper: str, server: str) -> Credential | None:
        reply = self._run(helper, "get", server.encode())
        if reply is None:
            return None
        try:
            document = json.loads(reply)
            username, secret = document["Username"], document["Secret"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InvalidInput(f"credential helper {helper}: its reply for {server} is not understood") from None
        return Credential(identity_token=str(secret)) if username == _TOKEN else Credential(str(username), str(secret))

    def store(self, helper: str, server: str, credential: Credential) -> None:
        request = {
            "ServerURL": server,
            "Username": _TOKEN if credential.identity_token else credential.username,
            "Secret": credential.identity_token or credential.password,
        }
        self._run(helper, "store", json.dumps(request).encode())
        self._forget(helper, server)

    def erase(self, helper: str, server: str) -> bool:
        """False when the helper says that it knew nothing."""
        erased = self._run(helper, "erase", server.encode()) is not None
        self._forget(helper, server)
        return erased

    def _forget(self, helper: str, server: str) -> None:
        with self._lock:
            self._kept.pop((helper, server), None)

    def _run(self, helper: str, action: str, data: bytes) -> bytes | None:
        """What the program prints; None when it has no such credential."""
        if not _NAME.match(helper):
            raise InvalidInput(f"credential helper {helper[:60]!r}: not a valid name")
        import subprocess

        program = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [program, action], input=data, capture_output=True, env=dict(self._environ),
                timeout=self._timeout_s, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise InvalidInput(f"run credential helper {program}: not installed") from None
        except subprocess.TimeoutExpired:
            raise InvalidInput(f"credential helper {program} {action}: no answer in {self._timeout_s:g} s") from None
        except OSError as error:
            raise InvalidInput(f"run credential helper {program}: {(error.strerror or '').lower()}") from error
        if done.returncode == 0 and len(done.stdout) <= _MAX_REPLY:
            return done.stdout
        if _ABSENT in done.stdout.decode("utf-8", "replace"):
            return None
        raise InvalidInput(f"credential helper {program} {action}: failed with exit code {done.returncode}")
