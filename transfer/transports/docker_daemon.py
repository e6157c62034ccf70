"""``docker-daemon:name[:tag]`` and ``docker-daemon:sha256:ID``: the images of a docker daemon.

The daemon gives and takes what ``docker save`` and ``docker load`` do, so this is a
``docker-archive`` that comes from, and goes to, a socket: no manifest, no index. What it gives is
kept in an unnamed file on disk meanwhile, as the archive's table comes last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

from image.errors import InvalidInput
from image.manifest import Index, Manifest
from image.reference import Reference
from transfer.docker_engine import Engine, Exchange
from transfer.transports.docker_archive import (
    DockerArchive,
    DockerArchiveSink,
    DockerArchiveSource,
    DockerArchiveWriter,
)
from transfer.transports.tar_input import TarInput
from transfer.transports.tar_output import TarOutput

if TYPE_CHECKING:
    from types import TracebackType

    from image.descriptor import Descriptor

_ID: Final = re.compile(r"sha256:[0-9a-f]{64}")


class DockerDaemonSource(DockerArchiveSource):
    """One image of a daemon."""

    def __init__(self, name: str, engine: Engine) -> None:
        self._name = name if _ID.fullmatch(name) else str(_reference(name))
        self._exchange = Exchange(engine)
        super().__init__(self.name)

    @property
    def name(self) -> str:
        return f"docker-daemon:{self._name}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._exchange.close)
            self._exchange.find(self._name)  # a plain answer where there is none
            read = self._exchange.saved(self._name)
            self._archive = DockerArchive(stack.enter_context(TarInput.spooled(read, self.name)))
            self._stack = stack.pop_all()
        return self

    def abort(self) -> None:
        self._exchange.abort()


class DockerDaemonSink(DockerArchiveSink):
    """A place for one image in a daemon, which shows it when it has all of it."""

    def __init__(self, names: Iterable[str], engine: Engine) -> None:
        references = [_reference(name) for name in names]
        self._exchange = Exchange(engine)
        self._loading = ExitStack()
        self._where = f"docker-daemon:{references[0].familiar}"
        super().__init__(
            self._where, references, writer=DockerArchiveWriter(self._where, TarOutput(self._where, self._write))
        )

    @property
    def name(self) -> str:
        return self._where

    def _write(self, data: bytes | memoryview) -> None:
        self._load.write(data)

    def __enter__(self) -> Self:
        self._load = self._loading.enter_context(self._exchange.loading())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._loading.close()

    def commit(self, descriptor: Descriptor, manifest: Manifest | Index) -> None:
        super().commit(descriptor, manifest)
        self._writer.finish()
        self._load.finish()

    def abort(self) -> None:
        self._exchange.abort()


def _reference(name: str) -> Reference:
    reference = Reference.parse(name).with_default_tag()
    if reference.digest is not None:
        raise InvalidInput(f"docker-daemon:{name[:200]}: a daemon's image is named by a tag, or by its id sha256:…")
    return reference
