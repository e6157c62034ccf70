"""Carries bytes between the user's terminal and the container until the container ends.

One loop over ``poll``, no threads. Output goes straight on, and may block: that is how a
user's slow reader slows the container down. Input is buffered, so that a container that
does not read cannot keep its own output from being carried.
"""

from __future__ import annotations

import os
import select

from image.bare import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Pollable(Protocol):
        """Something with a descriptor that becomes readable: a container when it has ended."""

        def fileno(self) -> int: ...

    class Served(Pollable, Protocol):
        """Something that has work to do when its descriptor is readable."""

        def serve(self) -> None: ...


_CHUNK = 1 << 16


class Relay:
    """Add the ways, then ``run``. Descriptors stay the caller's, except an input's target."""

    def __init__(self) -> None:
        self._outputs: dict[int, int] = {}
        self._source = -1
        self._target = -1
        self._pending = b""
        self._close_target = False
        self._served: Served | None = None

    def add_output(self, source: int, target: int) -> None:
        """From the container's pipe or terminal to the user."""
        self._outputs[source] = target

    def set_input(self, source: int, target: int, *, close_at_end: bool) -> None:
        """From the user to the container; with ``close_at_end`` the end of input closes ``target``."""
        os.set_blocking(target, False)
        self._source, self._target, self._close_target = source, target, close_at_end

    def serve(self, served: Served) -> None:
        """Beside the rest, while the container lives."""
        self._served = served

    def run(self, container: Pollable, signals: Pollable) -> None:
        """Until the container has ended and all that it wrote has been carried.

        ``signals`` becomes readable when a signal has arrived, whose handler then runs.
        """
        ended = False
        while not ended or self._outputs:
            poller = select.poll()
            for fd, mask in self._interests(container, signals, ended=ended).items():
                poller.register(fd, mask)
            events = dict(poller.poll(0 if ended and self._only_terminals() else None))
            if signals.fileno() in events:
                os.read(signals.fileno(), _CHUNK)
            if ended and not events:
                break  # a terminal has no end of its own while somebody holds it
            for source in [fd for fd in self._outputs if fd in events]:
                self._carry_output(source)
            if not ended:
                self._carry_input(events)
                if self._served is not None and self._served.fileno() in events:
                    self._served.serve()
                ended = container.fileno() in events
        self.close()

    def _only_terminals(self) -> bool:
        return all(source == self._target or os.isatty(source) for source in self._outputs)

    def _interests(self, container: Pollable, signals: Pollable, *, ended: bool) -> dict[int, int]:
        masks = dict.fromkeys(self._outputs, select.POLLIN)
        if not ended:
            masks[container.fileno()] = masks[signals.fileno()] = select.POLLIN
            if self._served is not None:
                masks[self._served.fileno()] = select.POLLIN
            if self._pending:  # a terminal is both an output and the input's target
                masks[self._target] = masks.get(self._target, 0) | select.POLLOUT
            elif self._source >= 0:
                masks[self._source] = select.POLLIN
        return masks

    def _carry_output(self, source: int) -> None:
        try:
            data = os.read(source, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: every program has closed the terminal
            data = b""
        if not data:
            del self._outputs[source]
            return
        view = memoryview(data)
        with suppress(OSError):  # the user's side is gone: carry on, the container may have more to do
            while view:
                view = view[os.write(self._outputs[source], view) :]

    def _carry_input(self, events: dict[int, int]) -> None:
        if not self._pending and self._source in events:
            try:
                self._pending = os.read(self._source, _CHUNK)
            except OSError:
                self._pending = b""
            if not self._pending:
                self._source = -1
                self.close()
        if self._pending:
            try:
                self._pending = self._pending[os.write(self._target, self._pending) :]
            except BlockingIOError:
                pass
            except OSError:  # EPIPE: the container does not read any more
                self._pending, self._source = b"", -1

    def close(self) -> None:
        """Close the input's target, where that was wanted. Idempotent."""
        if self._close_target and self._target >= 0:
            os.close(self._target)
            self._target = -1
