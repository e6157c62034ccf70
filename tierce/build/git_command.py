"""The git command, run so that nothing of the user or the repository steers it.

No configuration of the system or the user, no hooks, no templates, no prompts, no helpers;
only the network protocols that were asked for. Credentials travel in the environment, so
no list of processes and no log shows them.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from builder.dockerfile.remotes import shown
from image.errors import Cancelled, NotFound, RegistryError
from image.value import dataclass
from tierce.build.downloads import header_value

_MAX_OUTPUT: Final = 16 << 20
_LAST_WORDS: Final = 4096
_SETTINGS: Final = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.autocrlf=false", "credential.helper=",
    "gc.auto=0", "maintenance.auto=false", "protocol.ext.allow=never", "advice.detachedHead=false",
    "http.lowSpeedLimit=1000", "http.lowSpeedTime=60", "safe.directory=*",
    "submodule.recurse=false",
)  # fmt: skip
_KEPT_ENVIRONMENT: Final = (
    "PATH", "TMPDIR", "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository's address without its secrets, and the header that has them."""

    url: str
    authorization: str = ""

    @classmethod
    def of(cls, url: str, secrets: Mapping[str, Callable[[], bytes]]) -> Remote:
        """Takes user and password out of the URL; the secrets ``GIT_AUTH_TOKEN`` and ``GIT_AUTH_HEADER``,
        or those with ``.host`` after their name, win over them."""
        parts = urlsplit(url) if url.startswith(("http://", "https://")) else None
        if parts is None:
            return cls(url)
        plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        for host in (f".{parts.hostname}", ""):
            if give := secrets.get(f"GIT_AUTH_HEADER{host}"):
                return cls(plain, header_value(give(), f"GIT_AUTH_HEADER{host}"))
            if give := secrets.get(f"GIT_AUTH_TOKEN{host}"):
                return cls(plain, _basic("x-access-token:" + give().decode("latin-1").strip()))
        if parts.username is None:
            return cls(plain)
        return cls(plain, _basic(f"{unquote(parts.username)}:{unquote(parts.password or '')}"))

    @property
    def shown(self) -> str:
        return shown(self.url)

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}/"


def _basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


class GitFailed(RegistryError):
    """git ended with an error; the message has its last words."""


class GitCommand:
    """Runs git, in any number of threads. ``protocols`` are those that git may speak."""

    def __init__(self, environ: Mapping[str, str], agent: Path | None, protocols: Sequence[str]) -> None:
        self._environ = environ
        self._agent = agent
        self._protocols = protocols
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._aborted = False

    def run(self, remote: Remote, *words: str, cwd: Path | None = None) -> str:
        """What git prints. ``words`` from outside stand behind a ``--``.

        Raises NotFound without git, GitFailed, Cancelled after ``abort``.
        """
        program = shutil.which("git", path=self._environ.get("PATH"))
        if program is None:
            raise NotFound(f"{remote.shown}: the git command is needed and was not found: install git")
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        with tempfile.TemporaryFile() as errors:
            process = self._start([program, *settings, *words], remote, cwd, errors.fileno())
            try:
                assert process.stdout is not None
                output = process.stdout.read(_MAX_OUTPUT + 1)
                if len(output) > _MAX_OUTPUT:
                    raise GitFailed(f"git {words[0]} {remote.shown}: it says too much", url=remote.shown)
                process.wait()
            finally:
                self._end(process)
            if self._aborted:
                raise Cancelled(f"git {words[0]} {remote.shown} was stopped")
            if process.returncode != 0:
                raise GitFailed(f"git {words[0]} {remote.shown}: {_last_words(errors.fileno())}", url=remote.shown)
        return output.decode("utf-8", "surrogateescape")

    def abort(self) -> None:
        """End every git that runs, and those that would start later."""
        with self._lock:
            self._aborted = True
            running = list(self._running)
        for process in running:
            _kill(process)

    def _start(self, argv: list[str], remote: Remote, cwd: Path | None, errors: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._aborted:
                raise Cancelled(f"git {remote.shown} was stopped")
            process = subprocess.Popen(
                argv, cwd=cwd or "/", env=self._environment(remote), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=errors, start_new_session=True, umask=0o022,
            )  # fmt: skip
            self._running.add(process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Leave no process behind, whatever happened."""
        with self._lock:
            self._running.discard(process)
        if process.poll() is None:
            _kill(process)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _environment(self, remote: Remote) -> dict[str, str]:
        kept = {name: self._environ[name] for name in _KEPT_ENVIRONMENT if name in self._environ}
        agent = f"-o IdentityAgent={self._agent}" if self._agent else "-o IdentityAgent=none"
        own = {
            "HOME": "/nonexistent", "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_ATTR_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "",
            "GIT_ALLOW_PROTOCOL": ":".join(self._protocols),
            "GIT_SSH_COMMAND": f"ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes {agent}",
        }  # fmt: skip
        if "SSL_CERT_FILE" in self._environ:
            own["GIT_SSL_CAINFO"] = self._environ["SSL_CERT_FILE"]
        if remote.authorization:
            own |= {
                "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"http.{remote.origin}.extraHeader",
                "GIT_CONFIG_VALUE_0": f"Authorization: {remote.authorization}",
            }  # fmt: skip
        return kept | own


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _last_words(fd: int) -> str:
    """The line of git's errors that says why, without control characters."""
    size = os.fstat(fd).st_size
    text = os.pread(fd, _LAST_WORDS, max(0, size - _LAST_WORDS)).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:", "remote:", "ssh:", "Host key"))]
    line = (telling or lines or ["no reason given"])[0]
    clean = "".join(letter if letter.isprintable() else " " for letter in line)
    return clean.partition(": ")[2][:300] if line.startswith(("fatal:", "error:")) else clean[:300]
