"""``run``: create and start a container; in the foreground also wait for its end and delete it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.containers.signals import Signals
    from runner.runtime.call import Call
    from runner.runtime.running import Running
    from runner.runtime.spawn import Watcher


def run(call: Call) -> int:
    detached = call.options.flag("detach")
    with call.spawn(detached=detached) as watcher:  # before the imports below: both take as long
        return _run_detached(call, watcher) if detached else _run_here(call, watcher)


def _run_detached(call: Call, watcher: Watcher) -> int:
    from runner.runtime.bundle import begin, read_bundle
    from runner.runtime.verbs.start import after_start

    found, running = begin(call, read_bundle(call), watcher, wait=False)
    running.close()
    after_start(call, found)
    return 0


def _run_here(call: Call, watcher: Watcher) -> int:
    from runner.containers.signals import Signals
    from runner.runtime.bundle import begin, read_bundle
    from runner.runtime.verbs.delete import remove

    bundle = read_bundle(call)
    with Signals() as signals:
        found, running = begin(call, bundle, watcher, wait=False)
        try:
            with running:
                if bundle.spec.hooks.poststart:
                    from runner.runtime.verbs.start import after_start

                    after_start(call, found)
                return follow(running, signals)
        finally:
            if not call.options.flag("keep"):
                remove(call, found, bundle.spec.hooks.poststop)


def follow(running: Running, signals: Signals) -> int:
    """Carry signals and, with a terminal, its bytes, until the process ends: its exit code."""
    from runner.containers.relay import Relay

    signals.forward_to(running)
    relay = Relay()
    if running.console is None:
        relay.run(running, signals)
        return running.wait()
    from runner.containers.attach import UserStdio, window

    with window(running, UserStdio(), relay, interactive=True):
        relay.run(running, signals)
        return running.wait()
