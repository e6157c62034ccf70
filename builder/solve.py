"""Walks the graph and causes the effects, in parallel.

First the whole graph is *probed* without effects: which results does the build cache hold?
What is left is *performed*: a step starts when its inputs are there, independent steps side
by side. A layer is packed, hashed and compressed beside the steps that follow it.

The cache is content-addressed. A step that copies from a stage has two keys: one by
where the files come from, known before that stage is built, and one by what they are. The
first only leads to the second, so a stage that changed but gave the same files
invalidates nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from pathlib import Path
from typing import assert_never

from builder.cache_key import image_key, stacked_key
from builder.cached import CachedResults
from builder.commits import Commits, Made
from builder.context import Context
from builder.failed import failed_step
from builder.graph import (
    CopyFiles,
    FromContext,
    FromGit,
    FromImage,
    FromScratch,
    FromUrl,
    Graph,
    MakeDirectory,
    RunCommand,
    Step,
    inputs_first,
)
from builder.ports import BaseImages, Downloads, HostMount, RemoteCache, Repositories, Sandbox, Stream
from builder.progress import (
    Progress,
    StepCached,
    StepCancelled,
    StepDone,
    StepFailed,
    StepOutput,
    StepStarted,
)
from builder.remembered import StoredChecksums
from builder.remotes import SIGNAL_PAUSE_S, RemoteSources
from builder.results import BuiltLayer, Result, Rootfs, Stack, known
from builder.step_keys import StepKeys, is_linked, located, reads_built
from builder.steps.copy import CopyEffect
from builder.steps.mounts import MountSources
from builder.steps.moved_copy import MovedCopy, may_move, move, owner_is_known
from builder.steps.run import RunEffect, RunFailed
from builder.steps.workdir import make_directory
from image import media_types
from image.descriptor import Descriptor
from image.digest import chain_ids
from image.errors import Cancelled, DockerfileError, TierceError
from image.platform import Platform
from image.value import dataclass, field
from store.cache_mounts import CacheMounts
from store.claims import claim
from store.failed_steps import FailedSteps, new_id
from store.layers import Workspace
from store.metadata import CacheRecord
from store.store import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression


@dataclass(frozen=True, slots=True)
class SolveOptions:
    """``jobs`` steps at once. ``epoch_s`` clamps file times (SOURCE_DATE_EPOCH), and makes layers the same anywhere.

    Cached results older than ``cache_ttl_s`` do not count.
    """

    jobs: int = 4
    epoch_s: int | None = None
    compression: Compression = "gzip"
    compression_level: int | None = None
    cache_ttl_s: float | None = None


@dataclass(frozen=True, slots=True)
class Ports:
    """The build's connections to the world. ``remotes`` are caches of other builds, asked in order."""

    images: BaseImages
    sandbox: Sandbox
    contexts: Mapping[str, Context]
    progress: Progress
    clock: Callable[[], float] = time.time
    secrets: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    agents: Mapping[str, Path] = field(default_factory=dict)
    authorities: Path | None = None
    volumes: tuple[HostMount, ...] = ()
    remotes: Sequence[RemoteCache] = ()
    why_not: Callable[[Platform], str | None] = lambda _: None
    """What keeps a program of a platform from running here; None when nothing does."""
    downloads: Downloads | None = None
    repositories: Repositories | None = None


@dataclass(frozen=True, slots=True)
class SolvedStep:
    """What is known of a step after a build: its keys, and the layers up to it.

    ``definition`` is the key by where its content comes from, if it has one.
    """

    step: Step
    key: str
    definition: str | None
    stack: Stack


class Solver:
    """Solves one graph inside a store session."""

    def __init__(self, session: Session, ports: Ports, options: SolveOptions) -> None:
        self._session = session
        self._ports = ports
        self._options = options
        self._metadata = session.store.metadata
        self._layers = session.store.layers
        self.cancelled = threading.Event()
        self._network = RemoteSources(session.content, ports.downloads, ports.repositories)
        self._copy = CopyEffect(
            self._layers, StoredChecksums(self._metadata), self._network.open, lambda: int(ports.clock() * 1e9),
            self._stop_if_cancelled,
        )  # fmt: skip
        sources = MountSources(
            CacheMounts(session.store.root), ports.secrets, ports.agents, ports.authorities, tuple(ports.remotes),
            ports.volumes,
        )  # fmt: skip
        self._keys = StepKeys(self._copy, self._network, ports.contexts, options.epoch_s)
        self._everywhere = sources.everywhere
        self._run = RunEffect(self._layers, ports.sandbox, sources, self.cancelled)
        ttl_s = options.cache_ttl_s
        oldest_s = 0.0 if ttl_s is None else ports.clock() - ttl_s
        self._cached = CachedResults(session, ports.remotes, not_before_s=oldest_s)
        self._elsewhere: dict[str, Rootfs] = {}
        self._results: dict[str, Result] = {}
        self._commits = Commits(
            session, ports.clock, self.cancelled,
            compression=options.compression, level=options.compression_level, clamp_s=options.epoch_s,
        )  # fmt: skip

    def solve(self, graph: Graph) -> Stack:
        """The layers of the target's root filesystem, bottom to top.

        Raises the first failing step's error, after every other step was stopped.
        """
        results = self._results
        self._probe_all(graph, results)
        needed = _needed(graph.target, results)
        self._refuse_foreign(graph, needed, results)
        self._report_cached(graph, results, needed)
        self._elsewhere = {name: found for name in needed if isinstance(found := results.pop(name, None), Rootfs)}
        try:
            with self._commits.running() if needed else nullcontext():
                self._perform(needed, results)
                target = results[graph.target.id]
                assert isinstance(target, Rootfs)
                stack = self._awaited(target)
        except Cancelled:
            if self._commits.error is not None:
                raise self._commits.error from None
            raise
        self._cached.remember_use()
        return stack

    def _awaited(self, target: Rootfs) -> Stack:
        """The target's layers, which may still be packed. Whoever does not wait for them ends that."""
        try:
            return target.stack.result()
        except BaseException as error:
            self._commits.abort(error)
            raise

    def _stop_if_cancelled(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled("the build was cancelled")

    @property
    def is_portable(self) -> bool:
        """Whether layers are to have the same bytes on every machine."""
        return self._options.epoch_s is not None

    def check(self, graph: Graph) -> None:
        """Raises DockerfileError if ``solve`` would have to run a process that can't run here. Has no effects."""
        results: dict[str, Result] = {}
        self._probe_all(graph, results)
        self._refuse_foreign(graph, _needed(graph.target, results), results)

    def _refuse_foreign(self, graph: Graph, needed: Mapping[str, Step], results: Mapping[str, Result]) -> None:
        """Fail before anything is done. What is only to be fetched runs nothing."""
        for step in needed.values():
            if isinstance(step.operation, RunCommand) and step.id not in results:
                reason = self._ports.why_not(step.platform or graph.platform)
                if reason is not None:
                    raise DockerfileError(reason, span=step.span)

    def solved(self, graph: Graph) -> tuple[SolvedStep, ...]:
        """What a solved graph's steps came to, inputs first. Steps that did not have to be looked at are left out."""
        found: list[SolvedStep] = []
        for step in inputs_first(graph.target):
            result = self._results.get(step.id)
            base = self._results.get(step.base.id) if step.base else None
            if isinstance(result, Rootfs) and isinstance(base, Rootfs):
                definition = self._keys.definition(step, base) if reads_built(step) else None
                key = (
                    self._keys.before_effects(step, base, self._results, self._cached.leads_to)
                    if is_linked(step)
                    else result.key
                )
                found.append(SolvedStep(step, key or result.key, definition, result.stack.result()))
        return tuple(found)

    def result(self, step: Step) -> Result | None:
        """What a step of a solved graph came to, if it had to be looked at."""
        return self._results.get(step.id)

    def cached(self, graph: Graph) -> dict[str, float]:
        """The ids of steps that would take no work, with the seconds that each once took."""
        results: dict[str, Result] = {}
        self._probe_all(graph, results)
        return {step_id: self._took_s(result) for step_id, result in results.items()}

    def _took_s(self, result: Result) -> float:
        record = self._metadata.cached(result.key)
        return record.took_s if record else 0.0

    # Probing: no effects

    def _probe_all(self, graph: Graph, results: dict[str, Result]) -> None:
        self._network.ask(graph.target)
        for step in inputs_first(graph.target):
            found = self._probe(step, results)
            if found is not None:
                results[step.id] = found

    def _probe(self, step: Step, results: Mapping[str, Result]) -> Result | None:
        """The result of a step if it takes no work: sources that are at hand, cached layers."""
        match step.operation:
            case FromScratch():
                return Rootfs(image_key(None), (), known(()))
            case FromContext():
                return self._keys.files(step.operation)
            case FromImage():
                return self._unpacked(step.operation)
            case FromUrl() | FromGit():
                with located(step):
                    return self._network.known(step)
        base = results.get(step.base.id) if step.base else None
        if not isinstance(base, Rootfs) or step.fresh:
            return None
        key = self._keys.before_effects(step, base, results, self._cached.leads_to)
        return self._cached.find(key, base, linked=is_linked(step)) if key else None

    def _unpacked(self, source: FromImage) -> Rootfs:
        chains = chain_ids(source.image.config.diff_ids)
        if not chains:
            return Rootfs(image_key(None), (), known(()))
        return self._image_rootfs(source, here=self._session.hold_layers(chains[-1]))

    def _report_cached(self, graph: Graph, results: Mapping[str, Result], needed: Mapping[str, Step]) -> None:
        for step in inputs_first(graph.target):
            if (
                step.id in results
                and step.id not in needed
                and not isinstance(step.operation, FromScratch | FromContext | FromGit)
            ):
                self._ports.progress(StepCached(step.id, step.name, self._ports.clock()))

    # Performing

    def _perform(self, needed: Mapping[str, Step], results: dict[str, Result]) -> None:
        """Run every needed step, each as soon as its inputs are there."""
        waiting = dict(needed)
        running: dict[Future[Result], Step] = {}
        failure: BaseException | None = None
        with ThreadPoolExecutor(self._options.jobs, "step") as effects:
            try:
                while waiting or running:
                    for step in [step for step in waiting.values() if self._is_ready(step, results)]:
                        del waiting[step.id]
                        running[effects.submit(self._guarded, step, results)] = step
                    done, _ = wait(running, timeout=SIGNAL_PAUSE_S, return_when=FIRST_COMPLETED)
                    for future in done:
                        step = running.pop(future)
                        results[step.id] = future.result()
            except BaseException as error:
                failure = error
                self.cancelled.set()
                self._network.abort()
                self._cached.abort()
                self._commits.abort(error)
                raise
            finally:
                if failure is not None:
                    wait(running)

    def _is_ready(self, step: Step, results: Mapping[str, Result]) -> bool:
        return step.id in self._elsewhere or all(needed.id in results for needed in step.inputs)

    def _guarded(self, step: Step, results: Mapping[str, Result]) -> Result:
        """Perform one step and tell how it went."""
        clock, progress = self._ports.clock, self._ports.progress
        if self.cancelled.is_set():
            raise Cancelled(f"{step.name} was not started")
        try:
            with located(step):
                return self._perform_step(step, results)
        except TierceError as error:
            if self.cancelled.is_set():
                progress(StepCancelled(step.id, step.name, clock()))
            else:
                progress(StepFailed(step.id, step.name, error, clock()))
            raise

    def _perform_step(self, step: Step, results: Mapping[str, Result]) -> Result:
        clock, progress = self._ports.clock, self._ports.progress
        operation = step.operation
        if isinstance(operation, FromImage):
            progress(StepStarted(step.id, step.name, clock()))
            self._ports.images.unpack(self._session, operation.image)
            progress(StepDone(step.id, step.name, clock()))
            return self._image_rootfs(operation)
        if isinstance(operation, FromUrl):
            progress(StepStarted(step.id, step.name, clock()))
            download = self._network.fetch(step)
            progress(StepDone(step.id, step.name, clock()))
            return download
        if step.id in self._elsewhere:
            return self._fetch(step, self._elsewhere[step.id])
        assert step.base is not None
        base = results[step.base.id]
        assert isinstance(base, Rootfs)
        others = [results[other.id] for other in step.others]
        key = self._keys.of(step, base, others)
        self._remember_definition(step, base, key)
        held = None if step.fresh else claim(self._session.store.root, key, self.cancelled.is_set)
        try:
            found = None if held is None else self._cached.find(key, base, linked=is_linked(step))
            if found is not None and found.here:
                progress(StepCached(step.id, step.name, clock()))
                return found
            if found is not None:
                return self._fetch(step, found)
            began_s = clock()
            progress(StepStarted(step.id, step.name, began_s))
            moved = self._moved(step, base, others)
            if moved is None:
                workspace = self._session.workspace(base.top)
                self._effect(step, base, others, workspace)
            else:
                workspace = moved.workspace
            ended_s = clock()
            progress(StepDone(step.id, step.name, ended_s))
            made = Made(step, key, base, workspace, ended_s - began_s, moved, self._leads(step, others))
            stack = self._commits.submit(made, held)
            held = None  # whoever waits for the result finds it when it is committed
            above = stacked_key(base.key, key) if is_linked(step) else key
            return Rootfs(above, (workspace.directory, *base.directories), stack)
        finally:
            if held is not None:
                held.release()

    def _leads(self, step: Step, others: Sequence[Result]) -> tuple[str, ...]:
        """The keys under which a copy may be found again for another base, or for other content."""
        operation = step.operation
        if not isinstance(operation, CopyFiles) or not owner_is_known(operation):
            return ()
        of_any_content = self._keys.of_any_content(step)
        return (self._keys.on_any_base(step, others), of_any_content) if may_move(operation) else (of_any_content,)

    def _led_to(self, step: Step, lead: str) -> CacheRecord | None:
        found = None if step.fresh else self._metadata.cached(lead)
        return self._metadata.cached(found.label) if found else None

    def _moved(self, step: Step, base: Rootfs, others: Sequence[Result]) -> MovedCopy | None:
        """The same copy made before on another base, if it is the same layer on this one."""
        if not isinstance(step.operation, CopyFiles) or not may_move(step.operation):
            return None
        record = self._led_to(step, self._keys.on_any_base(step, others))
        return move(self._session, step.operation, record, base) if record else None

    def _earlier_layer(self, step: Step, operation: CopyFiles) -> Path | None:
        """The directory of the layer that the same instruction made last, which the session now holds."""
        record = self._led_to(step, self._keys.of_any_content(step)) if owner_is_known(operation) else None
        if record is None or record.chain_id is None or not self._session.hold_layers(record.chain_id):
            return None
        return self._layers.diff(self._layers.get(record.chain_id)).parent

    def _fetch(self, step: Step, found: Rootfs) -> Rootfs:
        """A result of a cache elsewhere, brought here."""
        fetched = self._cached.fetch(found)
        self._ports.progress(StepCached(step.id, step.name, self._ports.clock()))
        return fetched

    def _effect(self, step: Step, base: Rootfs, others: list[Result], workspace: Workspace) -> None:
        """Do to ``workspace``, on top of ``base``, what the step says."""
        operation = step.operation
        match operation:
            case RunCommand():

                def output(stream: Stream, data: bytes) -> None:
                    self._ports.progress(StepOutput(step.id, stream, data, self._ports.clock()))

                try:
                    self._run.perform(operation, base, others, workspace, output)
                except RunFailed as error:
                    raise self._entered_by_hand(step, operation, base, workspace, error) from error
            case CopyFiles():
                earlier = self._earlier_layer(step, operation)
                self._copy.perform(operation, base, others, workspace, mtime_s=self._options.epoch_s, earlier=earlier)
            case MakeDirectory():
                make_directory(operation, self._layers, base, workspace, mtime_s=self._options.epoch_s)
            case FromScratch() | FromImage() | FromContext() | FromUrl() | FromGit():
                raise AssertionError("sources have no base")
            case _:
                assert_never(operation)

    def _entered_by_hand(
        self, step: Step, operation: RunCommand, base: Rootfs, workspace: Workspace, error: RunFailed
    ) -> DockerfileError:
        """Keep what the failed process left, and say how to look at it."""
        below = base.stack.result()
        kept = FailedSteps(self._session.store)
        lent, options = self._everywhere, self._ports.sandbox.options
        failed = failed_step(new_id(kept.ids()), step, operation, base, workspace, error.mounts, lent, options)
        kept.keep(failed, below[-1].chain_id if below else None)
        without = ", without its secrets," if failed.left_out else ""
        hint = f"look inside{without} with: tierce builder shell {failed.id}"
        return DockerfileError(str(error), span=step.span, hint=hint)

    def _remember_definition(self, step: Step, base: Rootfs, key: str) -> None:
        """Let the next build find this step before it builds what the step reads from."""
        if reads_built(step) and (definition := self._keys.definition(step, base)):
            self._metadata.add_cached(CacheRecord(definition, None, None, None, 0, key))

    def _image_rootfs(self, source: FromImage, *, here: bool = True) -> Rootfs:
        image = source.image
        chains = chain_ids(image.config.diff_ids)
        stack = tuple(
            BuiltLayer(chain, diff, _as_oci(blob))
            for chain, diff, blob in zip(chains, image.config.diff_ids, image.layers, strict=True)
        )
        top = chains[-1] if chains else None
        return Rootfs(image_key(top), self._layers.directories_of(top) if here else (), known(stack), here)


def _needed(target: Step, results: Mapping[str, Result]) -> dict[str, Step]:
    """The steps that must be performed or fetched, by id: from the target down to what is here."""
    needed: dict[str, Step] = {}
    stack = [target]
    while stack:
        step = stack.pop()
        known_result = results.get(step.id)
        is_elsewhere = isinstance(known_result, Rootfs) and not known_result.here
        if step.id in needed or (known_result is not None and not is_elsewhere):
            continue
        needed[step.id] = step
        if known_result is None:
            stack.extend(step.inputs)
    return needed


def _as_oci(blob: Descriptor) -> Descriptor:
    """The same blob in OCI's words, as it enters an OCI manifest."""
    compression = media_types.layer_compression(blob.media_type)
    if media_types.is_foreign(blob.media_type):
        return blob
    return Descriptor(media_types.oci_layer(compression), blob.digest, blob.size)
