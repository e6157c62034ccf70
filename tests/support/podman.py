"""Podman and Buildah with storage of their own, on machines that forbid parts of their defaults.

``runc`` because crun refuses hybrid cgroups; limits below the caller's because raising
them needs CAP_SYS_RESOURCE; no events journal because there may be no systemd.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import command, need, remove_cgroups, unmount_below

CGROUP = "tierce-peer-podman"


@dataclass(frozen=True, slots=True)
class Podman:
    """One private storage, as podman and as buildah see it."""

    directory: Path
    environment: Mapping[str, str]
    runtime: str = "runc"

    def argv(self, *args: str | Path) -> list[str | Path]:
        """The whole command line of ``podman ARGS``."""
        own = self.directory
        return ["podman", *self._storage(), "--tmpdir", own / "tmp", "--runtime", self.runtime,
                "--cgroup-manager", "cgroupfs", "--events-backend", "none", *args]  # fmt: skip

    def buildah_argv(self, *args: str | Path) -> list[str | Path]:
        """The whole command line of ``buildah ARGS``."""
        return ["buildah", *self._storage(), *args]

    def __call__(self, *args: str | Path) -> str:
        return command(self.argv(*args), env=self.environment)

    def buildah(self, *args: str | Path) -> str:
        return command(self.buildah_argv(*args), env=self.environment)

    def build(self, name: str, context: Path, *options: str | Path) -> None:
        """``buildah build``, with layers and with the host's network for RUN."""
        self.buildah("bud", *self.build_options(), "--quiet", "--tag", name, *options, context)

    def build_options(self) -> tuple[str, ...]:
        """What ``buildah bud`` and ``podman build`` need on such a machine."""
        return ("--layers", "--runtime", "runc", "--isolation", "oci", "--network", "host")

    def run(self, image: str, *argv: str, options: tuple[str, ...] = ("--network=none",)) -> str:
        """What a container of ``image`` prints."""
        return self("run", "--rm", *self.run_options(), *options, image, *argv)

    def run_options(self) -> tuple[str, ...]:
        """What ``podman run`` needs on such a machine."""
        return (*(word for limit in modest_limits() for word in ("--ulimit", limit)), "--cgroup-parent", f"/{CGROUP}")

    def _storage(self) -> tuple[str | Path, ...]:
        own = self.directory
        return ("--root", own / "root", "--runroot", own / "run", "--storage-driver", "overlay")


@contextmanager
def podman(directory: Path) -> Iterator[Podman]:
    """Podman and Buildah with all they keep in ``directory``, which is gone afterwards.

    Skips the test when the machine lacks podman, buildah or runc.
    """
    for program in ("podman", "buildah", "runc"):
        need(program)
    (directory / "tmp").mkdir(parents=True)
    credentials = directory / "auth.json"
    credentials.write_text("{}")
    try:
        yield Podman(directory, os.environ | {"REGISTRY_AUTH_FILE": str(credentials)})
    finally:
        unmount_below(directory)
        remove_cgroups(CGROUP)
        shutil.rmtree(directory)


def modest_limits() -> list[str]:
    """Limits below those of the caller: podman's defaults are above, and it first lowers its own."""
    kinds = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    hard = {name: resource.getrlimit(kind)[1] for name, kind in kinds.items()}
    limits = {name: 4096 if limit == resource.RLIM_INFINITY else min(limit, 4096) for name, limit in hard.items()}
    return [f"{name}={limit}:{limit}" for name, limit in limits.items()]
