"""What commands that are started thousands of times import: an import costs as much as a mount, or a container."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

ON_THE_WAY = {
    "a runtime's run, until its process is spawned": ("runner.runtime.main", "runner.runtime.spawn"),
    "a runtime's run": (
        "runner.runtime.main", "runner.runtime.verbs.run", "runner.runtime.bundle", "runner.containers.signals",
        "runner.containers.relay", "runner.runtime.verbs.delete", "runner.runtime.rtnetlink",
    ),
    "a runtime's exec": (
        "runner.runtime.main", "runner.runtime.verbs.exec", "runner.runtime.bundle", "runner.runtime.enter",
        "runner.containers.signals", "runner.containers.relay", "runner.runtime.capabilities",
    ),
}  # fmt: skip
"""With what each imports on its way, wherever the import stands."""
COMMANDS = {
    "build": ("tierce.cli.build", "tierce.build.unchanged", "tierce.cli.build_progress"),
    "run": ("tierce.cli.run", "tierce.run", "tierce.containers", "runner.containers.foreground"),
    "run -d": ("tierce.cli.run", "tierce.containers", "tierce.cli.containers"),
    "exec": ("tierce.cli.exec", "runner.containers.begin", "runner.containers.stdio", "runner.runtime.enter"),
    "ps": ("tierce.cli.ps",),
    "logs": ("tierce.cli.logs", "runner.containers.log_reader"),
}
HEAVY = {"argparse", "click", "dataclasses", "inspect", "logging", "pathlib", "shutil", "socket", "subprocess", "tempfile", "typing"}  # fmt: skip
NOT_FOR_A_CONTAINER = HEAVY | {"collections", "contextlib", "enum", "functools", "json", "re", "signal"}
BEFORE_THE_SPAWN = NOT_FOR_A_CONTAINER | {"runner.runtime.spec", "store.linux.processes"}


def imported(modules: tuple[str, ...], *, beside: str = "") -> set[str]:
    """What a bare interpreter has loaded once it has loaded these; packages ``beside`` can be found too."""
    program = f"import sys; sys.path.append({beside!r}); import {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", program], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("case", ON_THE_WAY)
def test_the_way_to_a_container_imports_nothing_heavy(case: str) -> None:
    unwanted = BEFORE_THE_SPAWN if "spawned" in case else NOT_FOR_A_CONTAINER
    assert not imported(ON_THE_WAY[case]) & unwanted


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_imports_nothing_that_is_heavy(case: str) -> None:
    """Click among it: packages beside the standard library can't even be found here."""
    found = imported(("tierce.cli.main", *COMMANDS[case]))
    assert not found & (HEAVY | {"ast", "datetime", "hashlib", "json", "random", "re", "secrets", "zlib"})


def test_a_copy_between_registries_imports_no_store() -> None:
    found = imported(
        (
            "tierce.cli.copy",
            "tierce.registries",
            "transfer.attached",
            "transfer.transports.registry",
            "transfer.verify",
        ),
        beside=str(Path(click.__file__).parents[1]),
    )
    assert not found & {"_ctypes", "sqlite3", "store.layers", "store.metadata", "store.store", "urllib.request"}


def test_what_watches_a_running_container_imports_our_own_files_and_a_few_modules_in_c() -> None:
    found = imported(("runner.containers.keeper", "runner.network.resolver")) - imported(("os",))
    few = {"__future__", "_struct", "_socket", "fcntl", "select", "struct", "termios", "time"}
    assert {name for name in found if name.partition(".")[0] not in ("image", "runner", "store")} <= few


def test_the_process_that_becomes_a_container_imports_our_own_files_alone() -> None:
    bare = imported(("posix",))
    found = imported(("runner.runtime.child",)) - bare
    assert {name for name in found if name.partition(".")[0] not in ("runner", "store")} <= {"__future__", "_ctypes"}
