"""A user without any right, where namespaces are refused as docker's seccomp profile does: builds and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.attempts import attempts_context, listening, program_outside, reached
from tests.support.cli import Result, Tierce
from tests.support.ordinary_user import OrdinaryUser, ordinary_user
from tests.tierce.build.test_isolation import ATTEMPTS, SAME, TOKEN

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs x86-64, the one that the emulation knows"),
]

_RESTRICTED = """
import os, sys
from runner.isolation import filters
from store.linux import processes, seccomp
processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)
seccomp.load_seccomp(filters.program({272: filters.errno(1), 308: filters.errno(1), 165: filters.errno(1)}))
os.execv(sys.argv[1], sys.argv[1:])
"""


def restricted(user: OrdinaryUser, *args: str | Path, environ: tuple[str, ...] = ()) -> Result:
    argv = user.argv(*args)
    at = argv.index(sys.executable)
    argv[at:at] = [*environ, sys.executable, "-c", _RESTRICTED]
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, cwd=user.home, timeout=300, stdin=subprocess.DEVNULL
    )
    return Result(tuple(argv), done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def user(busybox_archive: Path) -> Iterator[OrdinaryUser]:
    with ordinary_user(ranges=False) as found:
        loaded = restricted(found, "load", "-q", "-i", found.give(busybox_archive))
        assert loaded.code == 0, str(loaded)
        yield found


def test_the_layers_are_those_of_roots_namespaces(
    user: OrdinaryUser, tierce_with_busybox: Tierce, tmp_path: Path
) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text(SAME)
    words = ("build", "-q", "--no-cache", "--network=host", "--source-date-epoch", "1600000000", "-t", "same")
    tierce_with_busybox(*words, tmp_path / "context")
    built = restricted(user, *words, user.give(tmp_path / "context"))
    assert built.code == 0, str(built)
    assert "isolation: emulated (no namespaces" in built.stderr
    layers = [json.loads(text)[0]["RootFS"]["Layers"] for text in (
        tierce_with_busybox("inspect", "same").stdout, restricted(user, "inspect", "same").stdout,
    )]  # fmt: skip
    assert layers[1] == layers[0]


@pytest.mark.parametrize(
    ("argv", "code", "printed"),
    [
        (("busybox", "id", "-u"), 0, "0\n"),
        (("-u", "7:8", "busybox", "sh", "-c", "id -u; touch /x; stat -c %u:%g /x"), 0, "7\n7:8\n"),
        (("busybox", "sh", "-c", "umask 027; touch f; mkdir d; chown 5:6 f; stat -c '%a %u:%g' f d"), 0,
         "640 5:6\n750 0:0\n"),
        (("busybox", "sh", "-c", "echo a > f; chmod 0 f; cat f; stat -c %a f; cd /etc; pwd; cd ..; pwd"), 0,
         "a\n0\n/etc\n/\n"),
        (("busybox", "sh", "-c", "mknod n c 1 3; stat -c %F n; ln -s /../etc l; readlink l; ls l/passwd"), 0,
         "character special file\n/../etc\nl/passwd\n"),
        (("busybox", "sh", "-c", "sleep 600 & exit 3"), 3, ""),
        (("busybox", "sh", "-c", "printf '#!/bin/sh -e\\necho $0 $1\\n' > s; chmod +x s; ./s one"), 0, "./s one\n"),
        (("busybox", "absent"), 127, ""),
    ],
    ids=["id", "user", "owners", "modes", "nodes-links", "leftovers", "script", "absent"],
)  # fmt: skip
def test_it_looks_like_root(argv: tuple[str, ...], code: int, printed: str, user: OrdinaryUser) -> None:
    result = restricted(user, "run", *argv)
    assert (result.code, result.stdout) == (code, printed), str(result)


def test_a_user_namespace_can_be_declined(user: OrdinaryUser) -> None:
    argv = user.argv("run", "busybox", "id", "-u")
    argv.insert(argv.index(sys.executable), "TIERCE_USER_NAMESPACE=no")
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=user.home, timeout=300)
    assert done.stdout == "0\n", done.stderr
    assert "isolation: emulated" in done.stderr


def test_nothing_of_the_builder_is_within_reach(user: OrdinaryUser) -> None:
    secret = user.home / "secret"
    secret.write_text(TOKEN)
    secret.chmod(0o644)
    with listening(TOKEN):
        script = ATTEMPTS.replace("SECRET", str(secret)[1:]).replace("PIDS", "3")
        result = restricted(user, "run", "busybox", "sh", "-c", script, environ=(f"CI_TOKEN={TOKEN}",))
    assert result.stdout == "end\n", str(result)


def test_no_other_way_out(user: OrdinaryUser, tmp_path: Path) -> None:
    """Processes and descriptors of the supervisor, calls past the filter, sockets, and a path that changes at exec."""
    secret, outside = user.home / "file", program_outside(user.home / "outside")
    secret.write_text(TOKEN)
    built = restricted(user, "build", "-q", "-t", "attempts", user.give(attempts_context(tmp_path / "context")))
    assert built.code == 0, str(built)
    with listening(TOKEN):
        result = restricted(user, "run", "attempts", "/attempts", secret, outside, TOKEN)
    assert reached(result.stdout) == ["end"], str(result)
