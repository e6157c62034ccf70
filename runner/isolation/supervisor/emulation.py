"""Answers the calls of a step that believes to be root in its own root filesystem.

Each path is resolved by the kernel with the root as its limit, and the call is done here on
what was found, or a descriptor is handed over (``calls``). Owners, and modes that would lock the
keeper out, are records beside the files (``store.owners``); so everything behaves as for root.

Deviations: a user other than root is a number that is told and recorded, its rights are
root's; attributes can't be set; a FIFO's reader does not wait for a writer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from runner.isolation import filters
from runner.isolation.request import StepRequest
from runner.isolation.supervisor import memory
from runner.isolation.supervisor.calls.attributes import Attributes
from runner.isolation.supervisor.calls.opening import Opening
from runner.isolation.supervisor.calls.status import Looking
from runner.runtime.notify import Listener, Notification


class Emulation(Opening, Looking, Attributes):
    """Every call that the filter notifies of."""

    def __init__(
        self, listener: Listener, request: StepRequest, first: int, program_of: Callable[[str], str | None]
    ) -> None:
        super().__init__(listener, request, first, program_of)
        self._handlers = {number: getattr(self, f"do_{name}") for number, name in filters.CALLS.items()}

    def _answer(self, call: Notification) -> None:
        value = self._handlers[call.number](call, *call.arguments)
        if value is not None:
            self._listener.answer(call.cookie, value)

    def do_getuid(self, *_: object) -> int:
        return self._ids[0]

    def do_getgid(self, *_: object) -> int:
        return self._ids[1]

    def do_getresuid(self, call: Notification, *addresses: int) -> int:
        return self._write_ids(call, addresses, self._ids[0])

    def do_getresgid(self, call: Notification, *addresses: int) -> int:
        return self._write_ids(call, addresses, self._ids[1])

    def _write_ids(self, call: Notification, addresses: tuple[int, ...], number: int) -> int:
        for address in addresses[:3]:
            memory.write(call.pid, address, struct.pack("I", number))
        return 0
