"""kill -9 at any instant loses nothing that was reported done, and the next command works.

The instants are random but repeatable: the seed is in the test's name. ``TIERCE_KILLS``
sets the number of tries a command (10); 70 makes the three of them more than two hundred.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.context import File, write_context
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.slow]

TRIES = int(os.environ.get("TIERCE_KILLS", "10"))
SEED = 20240101

DOCKERFILE = """\
FROM busybox AS one
ARG NONCE
RUN mkdir /made && dd if=/dev/urandom of=/made/$NONCE bs=1M count=8
FROM busybox
ARG NONCE
COPY --from=one /made /made
RUN test -s /made/$NONCE
CMD ["sh", "-c", "ls /made | wc -l"]
"""


def kill_at_random_instants(seed: int, start: Callable[[int], tuple[Tierce, tuple[str, ...]]]) -> None:
    """Start work, kill it, and hold the store to its promises; again and again.

    ``start(n)`` names the n-th work, done anew each time. The first runs to its end, which
    tells how long the others take; afterwards each killed one is done once more, whole.
    """
    tierce, argv = start(0)
    began = time.monotonic()
    tierce(*argv)
    whole_s = time.monotonic() - began
    instants = random.Random(seed)
    for attempt in range(1, TRIES + 1):
        tierce, argv = start(attempt)
        process = tierce.start(*argv)
        time.sleep(instants.uniform(0, whole_s))
        process.kill()
        process.communicate(timeout=10)  # a process left behind would hold the pipes open
        tierce("system", "check")
        tierce(*argv)


@pytest.mark.parametrize("seed", [SEED])
def test_build(seed: int, tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", {"Dockerfile": File(DOCKERFILE)})

    def start(attempt: int) -> tuple[Tierce, tuple[str, ...]]:
        options = ("--network=host", "--build-arg", f"NONCE={attempt}", "--tag", f"built:{attempt}")
        return tierce_with_busybox, ("build", *options, str(context))

    kill_at_random_instants(seed, start)
    assert tierce_with_busybox("run", "--rm", "--network=none", f"built:{TRIES}").stdout.strip() == "1"


@pytest.fixture
def pushed(tierce_with_busybox: Tierce, open_registry: Registry, tmp_path: Path) -> str:
    """The name of an image in a registry that takes a moment to pull."""
    name = open_registry.name("killed/source:1")
    context = write_context(tmp_path / "context", {"Dockerfile": File(DOCKERFILE)})
    tierce_with_busybox("build", "--network=host", "--build-arg", "NONCE=0", "--tag", name, context)
    tierce_with_busybox("push", name)
    return name


@pytest.mark.peer
@pytest.mark.parametrize("seed", [SEED])
def test_pull(seed: int, pushed: str, tmp_path: Path) -> None:
    def start(attempt: int) -> tuple[Tierce, tuple[str, ...]]:
        return Tierce(tmp_path / f"root-{attempt}"), ("pull", pushed)

    kill_at_random_instants(seed, start)
    assert Tierce(tmp_path / f"root-{TRIES}")("run", "--rm", "--network=none", pushed).stdout.strip() == "1"


@pytest.mark.peer
@pytest.mark.parametrize("seed", [SEED])
def test_push(seed: int, pushed: str, tierce_with_busybox: Tierce, open_registry: Registry, tmp_path: Path) -> None:
    def start(attempt: int) -> tuple[Tierce, tuple[str, ...]]:
        name = open_registry.name(f"killed/target-{attempt}:1")
        tierce_with_busybox("tag", pushed, name)
        return tierce_with_busybox, ("push", name)

    kill_at_random_instants(seed, start)
    second = Tierce(tmp_path / "second")
    second("pull", open_registry.name(f"killed/target-{TRIES}:1"))
    second("system", "check")
