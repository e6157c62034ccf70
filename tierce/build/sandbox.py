"""RUN steps on our own runtime. Implements ``builder.ports.Sandbox``.

A cached build runs nothing, so the runtime is imported when the first process is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Event, Lock
from typing import TYPE_CHECKING, Self

from builder.ports import SandboxRequest, Stream

if TYPE_CHECKING:
    from types import TracebackType

    from runner.containers.options import RunOptions
    from runner.isolation.ladder import Isolation
    from tierce.build.plain_steps import PlainStepRunner
    from tierce.build.steps import StepRunner


class RunnerSandbox:
    """Each request is a container of docker's kind, in namespaces of its own. A context manager."""

    def __init__(
        self, environ: Mapping[str, str], options: RunOptions | None = None, isolation: Isolation | None = None
    ) -> None:
        """``options`` are what every step may have beside docker's defaults.

        ``isolation`` says how steps are kept apart where it is not by namespaces.
        """
        self._isolation = isolation
        self._environ = environ
        self._options = options
        self._runner: StepRunner | PlainStepRunner | None = None
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._runner is not None:
            self._runner.close()

    @property
    def options(self) -> str:
        if self._options is None:
            return ""
        from runner.containers.stored import encode

        return encode(self._options)

    def prepare(self) -> None:
        self._prepared().prepare()

    def run(self, request: SandboxRequest, output: Callable[[Stream, bytes], None], cancelled: Event) -> int:
        return self._prepared().run(request, output, cancelled)

    def _prepared(self) -> StepRunner | PlainStepRunner:
        with self._lock:
            if self._runner is None:
                self._runner = self._make_runner()
            return self._runner

    def _make_runner(self) -> StepRunner | PlainStepRunner:
        if self._isolation is None:
            from tierce.build.steps import StepRunner

            return StepRunner(self._environ, self._options)
        from tierce.build.plain_steps import PlainStepRunner

        return PlainStepRunner(self._isolation, self._options)
