"""``start``: let a created container execute its program."""

from __future__ import annotations

import os
from contextlib import suppress

from image.errors import Conflict, TierceError
from runner.runtime.bundle import stored_spec
from runner.runtime.call import Call
from runner.runtime.record import FIFO, Record
from store.linux import descriptors


def run(call: Call) -> int:
    found = call.container()
    status = found.status
    if status != "created":
        why = "it has been started already" if status == "running" else f"it is {status}"
        raise Conflict(f"cannot start container {found.id}: {why}")
    open_fifo(found)
    after_start(call, found)
    return 0


def open_fifo(found: Record) -> None:
    """Read what pid 1 writes when it goes on, unless it ends instead. Raises Conflict or ContainerNotFound."""
    path = f"{found.directory}/{FIFO}"
    pidfd = found.pidfd()
    try:
        fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            events = descriptors.poll({fifo: descriptors.POLLIN, pidfd: descriptors.POLLIN})
            data = os.read(fifo, 1) if fifo in events else b""
        finally:
            os.close(fifo)
    except FileNotFoundError:
        raise Conflict(f"cannot start container {found.id}: it has been started already") from None
    finally:
        os.close(pidfd)
    if not data:
        raise Conflict(f"cannot start container {found.id}: its process has ended, or another start was faster")
    with suppress(FileNotFoundError):
        os.unlink(path)


def after_start(call: Call, found: Record) -> None:
    """Poststart hooks; one that fails only warns, as the container runs by now."""
    hooks = stored_spec(found).hooks.poststart
    if hooks:
        from runner.runtime.hooks import encode_state, run_hooks

        try:
            run_hooks("poststart", hooks, encode_state(found.oci_state()))
        except TierceError as error:
            call.warn(str(error))
