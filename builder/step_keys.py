"""The keys of a graph's steps, from what they read; files are read here, nothing is changed.

A step that copies from a stage has two keys: its ``definition``, by where the files come from,
known before that stage is built, and its key proper, by what they are. See ``cache_key``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from builder.cache_key import definition_key, step_key
from builder.context import Context
from builder.dockerfile.mounts import BindMount
from builder.graph import CopyFiles, FromContext, FromGit, FromUrl, RunCommand, Step, inputs_first
from builder.remotes import RemoteSources
from builder.results import Checkout, Download, Files, Result, Rootfs
from builder.steps.copy import CopyEffect
from image.errors import Cancelled, DockerfileError, TierceError


class StepKeys:
    """Keys in one build. ``copy`` and ``network`` read what counts."""

    def __init__(
        self, copy: CopyEffect, network: RemoteSources, contexts: Mapping[str, Context], epoch_s: int | None
    ) -> None:
        self._copy = copy
        self._network = network
        self._contexts = contexts
        self._epoch_s = epoch_s
        self._identities: dict[str, str] = {}

    def of(self, step: Step, base: Rootfs, others: Sequence[Result]) -> str:
        """The key of a step whose inputs are all there. Raises DockerfileError."""
        contents = [self._content(step, position, other) for position, other in enumerate(others)]
        return step_key(step.operation, _key_below(step, base), contents, epoch_s=self._epoch_s)

    def on_any_base(self, step: Step, others: Sequence[Result]) -> str:
        """What leads from a copy to the one that was made last with the same content, whatever its base."""
        contents = [self._content(step, position, other) for position, other in enumerate(others)]
        return definition_key(step_key(step.operation, None, contents, epoch_s=self._epoch_s), ["on any base"])

    def of_any_content(self, step: Step) -> str:
        """What leads from a copy to the one that the same instruction made last, whatever it copied."""
        return definition_key(step_key(step.operation, None, (), epoch_s=self._epoch_s), ["of any content"])

    def before_effects(
        self, step: Step, base: Rootfs, results: Mapping[str, Result], leads_to: Callable[[str], str | None]
    ) -> str | None:
        """The step's key, as far as it can be known without building what it reads from.

        ``leads_to`` gives the key that a definition had in an earlier build.
        """
        contents: list[str] = []
        for position, other in enumerate(step.others):
            result = results.get(other.id)
            if isinstance(result, Files | Download | Checkout):
                contents.append(self._content(step, position, result))
            else:
                definition = self.definition(step, base)
                return leads_to(definition) if definition else None
        return step_key(step.operation, _key_below(step, base), contents, epoch_s=self._epoch_s)

    def definition(self, step: Step, base: Rootfs) -> str | None:
        """The key by where the content comes from: the ids of other inputs cover all of their making.

        None while something of it is still to be downloaded, because nobody knows its content.
        """
        pending = self._network.pending
        if pending and any(needed.id in pending for other in step.others for needed in inputs_first(other)):
            return None
        plain = step_key(step.operation, _key_below(step, base), (), epoch_s=self._epoch_s)
        return definition_key(plain, [self._source_identity(other) for other in step.others])

    def files(self, source: FromContext) -> Files:
        """A context as what a step reads from."""
        return Files(f"context {source.name}", self._contexts[source.name])

    def _source_identity(self, source: Step) -> str:
        """A stage by its definition, with the content of every file that enters it from outside."""
        for step in inputs_first(source):
            if step.id in self._identities:
                continue
            parts = [self._identities[needed.id] for needed in step.inputs]
            parts += [
                self._content(step, position, given)
                for position, other in enumerate(step.others)
                if (given := self._given(other)) is not None
            ]
            self._identities[step.id] = definition_key(step.id, parts)
        return self._identities[source.id]

    def _given(self, source: Step) -> Result | None:
        """The files of a step that are not built."""
        match source.operation:
            case FromContext():
                return self.files(source.operation)
            case FromUrl() | FromGit():
                return self._network.known(source)
            case _:
                return None

    def _content(self, step: Step, position: int, source: Result) -> str:
        """The checksum of what a step reads from ``others[position]``. Raises DockerfileError."""
        with located(step):
            match step.operation:
                case CopyFiles():
                    return self._copy.checksum(step.operation, position, source)
                case RunCommand(mounts=mounts):
                    paths = tuple(
                        m.mount.source for m in mounts if m.input == position and isinstance(m.mount, BindMount)
                    )
                    return self._copy.checksum(CopyFiles(paths, "/"), 0, source)
                case _:
                    raise AssertionError("only copies and mounts read from other inputs")


def reads_built(step: Step) -> bool:
    """Whether a step reads from something that is built, or from an image."""
    return any(not isinstance(other.operation, FromContext | FromUrl | FromGit) for other in step.others)


def is_linked(step: Step) -> bool:
    """Whether a step makes a layer that fits on any base."""
    return isinstance(step.operation, CopyFiles) and step.operation.link


def _key_below(step: Step, base: Rootfs) -> str | None:
    """The base's part in the key of a step: none for a layer that fits on any base."""
    return None if is_linked(step) else base.key


@contextmanager
def located(step: Step) -> Iterator[None]:
    """Let an error of a step's work show the step's source lines."""
    try:
        yield
    except (DockerfileError, Cancelled):
        raise
    except TierceError as error:
        raise DockerfileError(str(error), span=step.span) from error
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        raise DockerfileError(f"{where}{(error.strerror or str(error)).lower()}", span=step.span) from error
