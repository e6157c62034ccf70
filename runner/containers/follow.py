"""A user's terminal or pipes, tied to a container through its monitor, until it ends or they part."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import ExitStack, suppress

from image.bare import loads
from image.errors import ContainerNotStarted, InvalidInput
from runner.containers import terminal, wire
from runner.containers.attach import OWN_STDIO, UserStdio
from runner.containers.signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Final

DEFAULT_KEYS: Final = "ctrl-p,ctrl-q"


class Detached(Exception):
    """The user typed the keys that leave a container running."""


def parse_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` or single letters, as bytes. Raises InvalidInput."""
    keys = b""
    for word in text.split(",") if text else ():
        name = word.removeprefix("ctrl-")
        if len(name) != 1 or (name != word and not (name.isalpha() or name in "@[\\]^_")):
            raise InvalidInput(f"invalid detach keys {text!r}: want letters or ctrl-LETTER, with commas between")
        keys += bytes([ord(name.upper()) & 0x1F]) if name != word else name.encode()
    return keys


class _Window:
    """What ``Signals`` signals, over the socket."""

    console: int | None = None

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def kill(self, number: int) -> None:
        with suppress(OSError):
            self._connection.sendall(wire.frame(wire.SIGNAL, str(number).encode()))

    def resize(self, rows: int, columns: int) -> None:
        with suppress(OSError):
            self._connection.sendall(wire.frame(wire.RESIZE, b"%d %d" % (rows, columns)))


class Follower:
    """One attached client."""

    def __init__(
        self, connection: socket.socket, *, interactive: bool, tty: bool, keys: bytes = b"", user: UserStdio = OWN_STDIO
    ) -> None:
        self._connection = connection
        self._user = user
        self._source = user.stdin if interactive else -1
        self._tty = tty
        self._keys = keys if tty else b""
        self._typed = b""
        self._frames = wire.Frames()
        self._code: int | None = None
        self._early: list[tuple[bytes, bytes]] = []
        """What came with the news of the start: shown once the terminal is ready for what the user answers."""
        self.warnings: list[str] = []

    def wait_for_start(self) -> None:
        """Raises ContainerNotStarted."""
        while True:
            data = self._connection.recv(wire.CHUNK)
            if not data:
                raise ContainerNotStarted("the container's monitor died", 125)
            frames = list(self._frames.feed(data))
            for at, (kind, body) in enumerate(frames):
                if kind == wire.FAILED:
                    code, problem = loads(body)
                    raise ContainerNotStarted(str(problem), int(code))
                if kind == wire.STARTED:
                    self.warnings = [str(line) for line in loads(body)]
                    self._early = frames[at + 1 :]
                    return

    def run(self, *, proxy: bool, started: Callable[[], None] = lambda: None) -> int | None:
        """Its exit code; None when the monitor is gone without a word. Raises Detached."""
        with ExitStack() as held:
            window = _Window(self._connection)
            signals = held.enter_context(Signals()) if proxy else None
            if signals is not None:
                signals.forward_to(window)
            if self._tty:
                self._use_terminal(window, held)
            started()
            for frame in self._early:
                self._take(*frame)
            while self._code is None:
                poller = select.poll()
                poller.register(self._connection, select.POLLIN)
                if self._source >= 0:
                    poller.register(self._source, select.POLLIN)
                if signals is not None:
                    poller.register(signals.fileno(), select.POLLIN)
                events = dict(poller.poll())
                if signals is not None and signals.fileno() in events:
                    os.read(signals.fileno(), 4096)
                if self._source in events:
                    self._read_input()
                if self._connection.fileno() in events and not self._read_frames():
                    break
        return self._code

    def _use_terminal(self, window: _Window, held: ExitStack) -> None:
        import signal

        def resized(*_: object) -> None:
            size = terminal.size(self._user.stdout, self._user.stdin)
            if size:
                window.resize(*size)

        if self._source >= 0 and os.isatty(self._source):
            held.enter_context(terminal.raw_mode(self._source))
        before = signal.signal(signal.SIGWINCH, resized)
        held.callback(signal.signal, signal.SIGWINCH, before)
        resized()

    def _read_frames(self) -> bool:
        try:
            data = self._connection.recv(1 << 18)
        except OSError:
            data = b""
        for kind, body in self._frames.feed(data):
            self._take(kind, body)
        return bool(data)

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind in (wire.OUT, wire.ERR):
            target = self._user.stdout if kind == wire.OUT else self._user.stderr
            view = memoryview(body)
            with suppress(OSError):  # nobody reads it: the container may have more to do
                while view:
                    view = view[os.write(target, view) :]
        elif kind == wire.ENDED:
            self._code = int(body)

    def _read_input(self) -> None:
        try:
            data = os.read(self._source, wire.CHUNK)
        except OSError:
            data = b""
        if not data:
            self._source = -1
            if not self._tty:
                self._send(b"")
            return
        for byte in data if self._keys else ():
            self._typed = self._typed + bytes([byte])
            if not self._keys.startswith(self._typed):
                self._typed = bytes([byte]) if self._keys[:1] == bytes([byte]) else b""
            if self._typed == self._keys:
                raise Detached
        self._send(data)

    def _send(self, data: bytes) -> None:
        with suppress(OSError):
            self._connection.sendall(wire.frame(wire.INPUT, data))
