"""``RUN --mount=type=ssh``: a socket of the step's own, behind which is the user's agent.

The agent's socket belongs to whoever started it; a step's has the owner and mode that the mount
asks for, and is gone with the step.

Spec: dockerfile.md 1.6.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from builder.dockerfile.mounts import SshMount
from image.errors import InvalidInput
from store.owners import owners

_NAME: Final = "agent"
_BLOCK: Final = 1 << 16


@contextmanager
def forwarded(agent: Path, ssh: SshMount, directory: Path) -> Iterator[Path]:
    """A socket in the empty ``directory`` that leads to ``agent`` while the block lasts.

    Raises InvalidInput when there is no agent at ``agent``.
    """
    _check(agent, ssh.id)
    with ExitStack() as opened:
        server = opened.enter_context(socket.socket(socket.AF_UNIX))
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, fd)
        server.bind(f"/proc/self/fd/{fd}/{_NAME}")  # the path itself may be too long for a socket's address
        opened.callback(os.unlink, _NAME, dir_fd=fd)
        owners().own_name(os.fsencode(_NAME), fd, ssh.uid, ssh.gid)
        os.chmod(_NAME, ssh.mode, dir_fd=fd)
        server.listen()
        forwarding = _Forwarding(server, agent)
        opened.callback(forwarding.end)
        forwarding.begin()
        yield directory / _NAME


def _check(agent: Path, name: str) -> None:
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(agent))
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
        raise InvalidInput(f"ssh agent {name}: {agent}: {problem}: start ssh-agent and add the key there") from error


class _Forwarding:
    """Connections of a step to the agent, each with a thread a direction."""

    def __init__(self, server: socket.socket, agent: Path) -> None:
        self._server = server
        self._agent = agent
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, name="ssh-agent", daemon=True)]

    def begin(self) -> None:
        self._threads[0].start()

    def end(self) -> None:
        """Hang up, and wait for the threads."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                step, _ = self._server.accept()
            except OSError:  # the end
                return
            agent = socket.socket(socket.AF_UNIX)
            try:
                agent.connect(str(self._agent))
            except OSError:  # the agent has ended: so does this connection
                agent.close()
                step.close()
                continue
            self._join(step, agent)

    def _join(self, step: socket.socket, agent: socket.socket) -> None:
        with self._lock:
            self._open |= {step, agent}
        thread = threading.Thread(target=self._both_ways, args=(step, agent), name="ssh-agent", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _both_ways(self, step: socket.socket, agent: socket.socket) -> None:
        back = threading.Thread(target=_relay, args=(agent, step), name="ssh-agent", daemon=True)
        back.start()
        _relay(step, agent)
        back.join()
        with self._lock:
            self._open -= {step, agent}
            step.close()
            agent.close()


def _relay(source: socket.socket, target: socket.socket) -> None:
    """One direction, until its end; the other side learns of it."""
    with suppress(OSError):
        while data := source.recv(_BLOCK):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
