"""Descriptors that somebody waits for on a unix socket: a console, a pidfd, a seccomp listener."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from image.errors import InvalidInput


def hand_over(path: str, fd: int, payload: bytes) -> None:
    """Connect to ``path`` and send ``fd`` with ``payload``. Raises InvalidInput."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            socket.send_fds(connection, [payload], [fd])
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise InvalidInput(f"cannot send a descriptor to {path}: {why}") from error


def listener_state(state: dict[str, Any], pid: int, metadata: str) -> bytes:
    """The container process state that comes with a seccomp listener (runtime-spec, "Seccomp")."""
    return json.dumps({
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": metadata,
        "state": state,
    }).encode()  # fmt: skip
