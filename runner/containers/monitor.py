"""The process that watches over one container, while it starts the container and gives back what it had.

The command line spawns it with one socket, on which it is told of its container, and the
container's first client listens (``summons``). It starts the container with the code that the foreground uses, becomes ``keeper`` for as
long as the container runs, and is back afterwards: it records how the container ended before
anybody is told, and starts it again where the policy says so. It holds the container's lock all
the time. When it is killed the kernel kills the container with it, and the next command writes
that down (``records``).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import ExitStack, suppress

from image.bare import dumps
from image.errors import ContainerNotFound, StorageError, TierceError
from image.paths import Path
from image.value import replace
from runner.containers import ending, probe, wire
from runner.containers import policy as policies
from runner.containers.begin import Begun, begin
from runner.containers.clients import Client, Clients
from runner.containers.groups import remembered
from runner.containers.kept import Kept, become, open_descriptors
from runner.containers.members import groups_of
from runner.containers.records import Records, State
from runner.containers.start import CLI_FAILED, exit_status, give_back
from runner.containers.summons import STARTER
from runner.runtime import user_namespace
from runner.runtime.cgroup import ControlGroups
from runner.runtime.privileges import probe as probe_privileges
from store.content import storage_errors
from store.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_FIRST_DELAY_S, _LAST_DELAY_S, _STEADY_S = 0.1, 60.0, 10.0


class Monitor:
    """One container's. ``kept`` is what it knows of the container's last life, or that there was none."""

    def __init__(self, records: Records, kept: Kept) -> None:
        self._records = records
        self._kept = kept
        self._record = records.unsettled(kept.id)
        self._clients = Clients.of(kept.clients, kept.listener)
        self._privileges = probe_privileges(records.store.root)
        self._stopped = kept.stopped

    def run(self) -> None:
        """Until this process is the container's keeper, or the container is to run no more."""
        if not self._kept.watcher or self._after():
            self._start()

    # --- a life begins --------------------------------------------------------------------

    def _start(self) -> None:
        """Does not return when the container has started."""
        others = open_descriptors()
        with ExitStack() as held:
            try:
                log = self._files()
                begun = held.enter_context(begin(self._records, self._record, Path(self._kept.root), self._privileges))
            except (TierceError, OSError) as error:
                self._failed(error)
                return
            state = State(
                "running", begun.container.pid, started_s=self._records.clock(), restarts=self._kept.restarts,
                address=begun.container.address, ports=tuple(map(str, begun.ports)), volumes=begun.volumes,
                networks=begun.container.networks,
            )  # fmt: skip
            self._record = self._records.set(self._record, state)
            listener = wire.listen(begun.directory).detach()
            pauses_s = self._health()
            self._clients.tell(wire.STARTED, dumps(list(begun.container.warnings)).encode())
            self._records.store.close()
            become(
                "runner.containers.keeper",
                replace(_of_life(self._kept, begun, open_descriptors() - others, listener), log=log,
                        pauses_s=pauses_s, clients=self._clients.states, stopped=False),
            )  # fmt: skip

    def _files(self) -> tuple[str, int, int] | None:
        """What the keeper writes to, made now so that an obstacle is seen before the container runs; the log of ``Kept``."""
        policy = self._record.made.policy
        path = self._records.log(self._record)
        with storage_errors(f"start container {self._record.name}"):
            ending.prepare(self._records.store.root, self._record.id)
            if policy.log_driver == "none":
                return None
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640))
        return (str(path), *policies.log_limits(policy))

    def _health(self) -> tuple[float, float, float] | None:
        """The pauses between questions, when there are any."""
        health = policies.health(self._record.made.policy, self._record.made.config)
        if health is None:
            return None
        probe.begin(self._records.directory(self._record.id))
        return health.interval_ns / 1e9, health.start_interval_ns / 1e9, health.start_period_ns / 1e9

    def _failed(self, error: TierceError | OSError) -> None:
        code = exit_status(error) if isinstance(error, TierceError) else CLI_FAILED
        status = "created" if not self._record.state.started_s else "exited"
        self._record = self._records.set(
            self._record,
            replace(
                self._record.state, status=status, code=code, error=str(error), restarts=self._kept.restarts,
                finished_s=self._records.clock(),
            ),
        )  # fmt: skip
        self._clients.tell(wire.FAILED, dumps([code, str(error)]).encode())

    # --- a life has ended -----------------------------------------------------------------

    def _after(self) -> bool:
        """Record it and give back what it had; whether it is to start again."""
        kept = self._kept
        directory = Path(kept.root) / "containers" / kept.id
        path = self._record.made.options.cgroups_path(kept.id) or remembered(directory)
        groups = ControlGroups(groups_of(self._privileges.cgroups, kept.id, path))
        now = self._record.state
        state = replace(
            now, status="exited", code=kept.code, oom_killed=groups.oom_killed(), finished_s=kept.finished_s, pid=0,
            address="", ports=(), stopped=kept.stopped,
        )  # fmt: skip
        with suppress(StorageError):  # a full disk: whoever looks next believes the file
            self._record = self._records.set(self._record, state)
        give_back(directory, groups)
        os.close(kept.lease)
        self._clients.stop_listening()
        self._clients.tell(wire.ENDED, str(kept.code).encode())
        return self._wants_restart() and self._wait_for_restart()

    def _wants_restart(self) -> bool:
        policy = self._record.made.policy
        return not self._stopped and policies.wants_restart(policy.restart, self._kept.code, self._kept.restarts)

    def _wait_for_restart(self) -> bool:
        """False when somebody stops it meanwhile."""
        steady = time.monotonic() - self._kept.began_s >= _STEADY_S
        delay_s = _FIRST_DELAY_S if steady else self._kept.delay_s or _FIRST_DELAY_S
        self._record = self._records.set(self._record, replace(self._record.state, status="restarting"))
        self._clients.listener = wire.listen(self._records.directory(self._record.id)).detach()
        self._serve_until(time.monotonic() + delay_s)
        self._clients.stop_listening()
        self._serve(0)  # who came last has not been heard
        if self._stopped:
            self._record = self._records.set(self._record, replace(self._record.state, status="exited"))
            return False
        self._look_again()
        self._kept = replace(
            self._kept, restarts=self._kept.restarts + 1, delay_s=min(2 * delay_s, _LAST_DELAY_S)
        )  # fmt: skip
        return True

    def _serve_until(self, deadline_s: float) -> None:
        while (left_s := deadline_s - time.monotonic()) > 0 and not self._stopped:
            self._serve(max(1, int(left_s * 1000)))

    def _serve(self, wait_ms: int) -> None:
        poller = select.poll()
        for fd, mask in self._clients.interests(hear=True).items():
            poller.register(fd, mask)
        self._clients.serve(dict(poller.poll(wait_ms)), self._obey)

    def _obey(self, client: Client, kind: bytes, _body: bytes) -> None:
        if kind == wire.ATTACH:
            client.attached = True
        elif kind == wire.STOP:
            self._stopped = True

    def _look_again(self) -> None:
        """It may have been renamed meanwhile, or have other limits and another policy."""
        with suppress(ContainerNotFound):
            self._record = replace(self._records.unsettled(self._record.id), state=self._record.state)

    def finish(self) -> None:
        """Remove the container where that was asked, let it go, and let everybody have what they are owed."""
        if self._record.made.policy.remove:
            from runner.containers.remove import remove

            remove(self._records, self._record, volumes=True)
        os.close(self._kept.lock)
        self._clients.drain()


def _of_life(kept: Kept, begun: Begun, held: set[int], listener: int) -> Kept:
    """With what has just been started; ``held`` are the descriptors that are open since."""
    container = begun.container
    watcher, supervisor = container.processes
    resolver = container.resolver
    return replace(
        kept,
        lease=container.lease,
        held=tuple(held - {container.lease, listener}),
        listener=listener,
        control=container.fileno(),
        watcher=watcher,
        pidfd=container.pidfd,
        console=-1 if container.console is None else container.console,
        outputs=tuple(begun.outputs.items()),
        input=begun.input,
        resolver=(str(begun.directory), *resolver.descriptors) if resolver is not None else None,
        network_process=container.network_process,
        supervisor=supervisor,
        began_s=time.monotonic(),
    )


def main() -> NoReturn:
    """Arguments: packages, then those of ``become``, or none of a new process."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    code = 0
    clients = Clients([])
    try:
        kept = _received() if len(sys.argv) > 2 else _first_kept()
        clients = Clients.of(kept.clients)
        with Store.open(Path(kept.store_root)) as store:
            records = Records(store)
            if kept.lock < 0:
                kept = replace(kept, lock=records.watch(kept.id, timeout_s=10))
            monitor = Monitor(records, kept)
            monitor.run()
            monitor.finish()
    except TierceError as error:
        clients.tell(wire.FAILED, dumps([CLI_FAILED, str(error)]).encode())
        clients.drain()
        code = 1
    os._exit(code)


def _first_kept() -> Kept:
    """From the command line, when it knows. It may also change its mind."""
    frames = wire.Frames()
    order = b""
    while not order:
        data = os.read(STARTER, wire.CHUNK)
        if not data:
            os._exit(0)
        order = next((body for _, body in frames.feed(data)), b"")
    store_root, root, container_id, attached = os.fsdecode(order).split("\0")
    user_namespace.hold(os.environ)
    starter = Client(STARTER, attached=bool(attached), patient=bool(attached), heard=frames.rest)
    return Kept(store_root, root, container_id, -1, clients=(starter.state,))


def _received() -> Kept:
    """From the keeper, after its container's end. What the container held is closed, but for its lease."""
    kept = Kept.received(int(sys.argv[2]))
    for fd in kept.held:
        os.close(fd)
    if kept.network_process:
        os.kill(kept.network_process, signal.SIGKILL)
    for pid in (kept.network_process, kept.supervisor):
        if pid:
            os.waitpid(pid, 0)
    return replace(kept, held=())
