"""A workbench with a way to the network, web servers and repositories on loopback."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builder.context import Context
from builder.outputs import BuiltImage
from builder.solve import SolveOptions
from builder.stage_plan import PlanOptions
from image.errors import DockerfileError
from image.reference import Reference
from store.layers import mounted
from store.store import Store
from tests.support.git import Repository, git_daemon
from tests.support.web import Web, web
from tests.tierce.build.test_building import OPTIONS, SOLVE, Workbench
from tierce.build.base_images import StoredImages
from tierce.build.building import Build, BuildRequest, Connections
from tierce.build.network import Network
from tierce.build.sandbox import RunnerSandbox


@dataclass
class Bench(Workbench):
    """A workbench with a way to the network, and named contexts."""

    environ: dict[str, str] = field(default_factory=lambda: {"PATH": os.environ["PATH"]})
    contexts: dict[str, Context] = field(default_factory=dict)

    def build(
        self, dockerfile: str, plan: PlanOptions = OPTIONS, solve: SolveOptions = SOLVE, root: Path | None = None
    ) -> BuiltImage:
        self.events.clear()
        request = BuildRequest(
            context=self.context, dockerfile=dockerfile.encode(), name="Dockerfile", path=None, plan=plan, solve=solve,
            tags=(Reference.parse("built:latest"),), contexts=self.contexts,
        )  # fmt: skip
        with (
            Store.open(root or self.root) as store,
            store.session() as session,
            RunnerSandbox(os.environ) as sandbox,
            Network(lambda: session, self.environ, self.secrets, self.agents) as network,
        ):
            images = StoredImages(store, session, os.environ)
            world = Connections(
                images, sandbox, self.events.append, time.time, self.secrets, downloads=network, repositories=network
            )
            return Build(session, request, world).run()

    def refused(self, dockerfile: str, plan: PlanOptions = OPTIONS) -> DockerfileError:
        """The error of a build that must fail; of what it did nothing is left."""
        with pytest.raises(DockerfileError) as caught:
            self.build(dockerfile, plan)
        assert caught.value.span is not None
        with Store.open(self.root) as store:
            store.collect()
            assert os.listdir(store.root / "ingest") == []
            assert os.listdir(store.root / "trash") == []
            known = {layer.directory for layer in store.metadata.layers()}
            assert store.layers.directories() == known
        return caught.value

    def times(self, built: BuiltImage, *paths: str) -> list[int]:
        with Store.open(self.root) as store:
            chain = store.facts(built.manifest).layers[-1].chain_id
            with mounted(store.layers.overlay(store.layers.directories_of(chain))) as fd:
                return [int(os.stat(path, dir_fd=fd).st_mtime) for path in paths]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "context").mkdir()
    Store.open(tmp_path / "root").close()
    return Bench(tmp_path / "root", tmp_path / "context")


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as running:
        yield running


def archive(files: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid = len(text), 0o640, 7
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "git").mkdir()
    return Repository.create(tmp_path / "git")


@pytest.fixture
def origin(repository: Repository, tmp_path: Path) -> Iterator[str]:
    with git_daemon(repository.bare.parent, tmp_path / "daemon.log") as url:
        yield f"{url}/app.git"


@dataclass(frozen=True, slots=True)
class Spy:
    """A git in the way that writes down its arguments."""

    log: Path

    def subcommands(self) -> set[str]:
        """Those since the last look."""
        known = {"fetch", "checkout", "ls-remote", "submodule"}
        words = self.log.read_text().split()
        self.log.write_text("")
        return known.intersection(words)


@pytest.fixture
def spied(bench: Bench, tmp_path: Path) -> Spy:
    git, log = shutil.which("git"), tmp_path / "arguments"
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {git} "$@"\n')
    program.chmod(0o755)
    bench.environ["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    return Spy(log)
