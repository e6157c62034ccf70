"""``run``: create and start a container; in the foreground also wait for its end and delete it."""

from __future__ import annotations

from contextlib import ExitStack

from runner.runtime.bundle import begin, read_bundle
from runner.runtime.call import Call
from runner.runtime.running import Running


def run(call: Call) -> int:
    from runner.runtime.verbs.delete import remove
    from runner.runtime.verbs.start import after_start

    bundle = read_bundle(call)
    if call.options.flag("detach"):
        found, running = begin(call, bundle, detached=True, wait=False)
        running.close()
        after_start(call, found)
        return 0
    with ExitStack() as held:
        signals = _signals(held)
        found, running = begin(call, bundle, detached=False, wait=False)
        if not call.options.flag("keep"):
            held.callback(remove, call, found, bundle.spec.hooks.poststop)
        held.enter_context(running)
        if bundle.spec.hooks.poststart:
            after_start(call, found)
        return follow(running, signals, held)


def _signals(held: ExitStack):  # type: ignore[no-untyped-def]  # its type is imported with it
    from runner.containers.attach import Signals

    return held.enter_context(Signals())


def follow(running: Running, signals, held: ExitStack) -> int:  # type: ignore[no-untyped-def]
    """Carry signals and, with a terminal, its bytes, until the process ends: its exit code."""
    from runner.containers.relay import Relay

    signals.forward_to(running)
    relay = Relay()
    if running.console is not None:
        from runner.containers.attach import UserStdio, window

        held.enter_context(window(running, UserStdio(), relay, interactive=True))
    relay.run(running, signals)
    return running.wait()
