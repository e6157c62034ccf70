"""Steps and containers without namespaces: the same layers, and nothing of the builder within reach."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.attempts import attempts_context, listening, program_outside, reached
from tests.support.cli import Tierce

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="needs x86-64, the one that the supervisor knows"
)

TOKEN = "hunter2-planted"
ORPHAN = "sh -c 'sleep 0.1 & echo $! > /pid'; while kill -0 $(cat /pid) 2>/dev/null; do usleep 50000; done; echo reaped"
SAME = """\
FROM busybox AS base
RUN echo hi > /a && rm -rf /etc/network && mkdir /etc/network && touch /etc/network/x
FROM base
COPY --from=base /a /b
WORKDIR /work
RUN rm /a; chmod 600 /b; ln /b /c; ln -s /b /d; mkdir -p q/w/e /home/joe && echo joe:x:1000:1000::/home/joe:/bin/sh >> /etc/passwd && chown -R joe /home/joe q
USER joe
RUN --mount=type=tmpfs,target=/scratch --mount=type=cache,target=/home/joe/c,uid=1000 touch /home/joe/x; true
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "context").mkdir()
    return tmp_path / "context"


def _diff_ids(tierce: Tierce, context: Path, isolation: str) -> list[str]:
    tierce(
        "build", "-q", "--no-cache", "--isolation", isolation, "--source-date-epoch", "1600000000", "--network=host",
        "-t", isolation, context,
    )  # fmt: skip
    layers: list[str] = json.loads(tierce("inspect", isolation).stdout)[0]["RootFS"]["Layers"]
    return layers


@pytest.mark.root
def test_the_layers_are_those_of_namespaces(tierce_with_busybox: Tierce, context: Path) -> None:
    (context / "Dockerfile").write_text(SAME)
    expected = _diff_ids(tierce_with_busybox, context, "oci")
    assert _diff_ids(tierce_with_busybox, context, "chroot") == expected


@pytest.mark.root
@pytest.mark.parametrize(
    ("argv", "code", "printed"),
    [
        (("busybox", "echo", "hello"), 0, "hello\n"),
        (("-u", "7:8", "busybox", "id", "-u"), 0, "7\n"),
        (("-e", "A=1", "-w", "/new/place", "busybox", "sh", "-c", "echo $A; pwd"), 0, "1\n/new/place\n"),
        (("busybox", "sh", "-c", "sleep 600 & exit 3"), 3, ""),
        (("busybox", "sh", "-c", "kill -9 $$"), 137, ""),
        (("busybox", "sh", "-c", "exec 3</proc/self/fd/0 4<>/dev/null; echo $(readlink /proc/self/cwd)"), 0, "/\n"),
        (("--init", "busybox", "sh", "-c", ORPHAN), 0, "reaped\n"),
        (("busybox", "absent"), 127, ""),
        (("busybox", "/etc/passwd"), 126, ""),
        (("-t", "busybox", "sh"), 125, ""),
        (("-v", "/tmp:/tmp", "busybox", "sh"), 125, ""),
        (("--network", "none", "busybox", "sh"), 125, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_run_in_a_chroot(argv: tuple[str, ...], code: int, printed: str, tierce_with_busybox: Tierce) -> None:
    result = tierce_with_busybox.attempt("run", "--isolation", "chroot", *argv)
    assert (result.code, result.stdout) == (code, printed)
    assert "isolation" in result.stderr


ATTEMPTS = r"""
look() { cat "$1" 2>/dev/null | tr '\0' '\n' | grep -a hunter2-plante[d] && echo "REACHED $1"; }
builder=$(cut -d ' ' -f 4 /proc/$$/stat)
for pid in 1 2 $builder PIDS; do
  for name in environ mem root/SECRET cwd/SECRET maps cmdline fd/3 fd/4 fd/5 task/$pid/environ; do look /proc/$pid/$name; done
  kill -0 $pid 2>/dev/null && [ $pid != $$ ] && echo "SIGNALLED $pid"
done
for up in .. ../.. ../../../../.. /proc/self/root/.. /proc/self/cwd/../../..; do look $up/SECRET; done
for fd in 0 1 2 3 4 5 6 7 8 9; do look /proc/self/fd/$fd/../SECRET; done
look SECRET; ln -s /../../SECRET /l 2>/dev/null; look /l; ln -s /proc/$builder/root /r; look /r/SECRET
mkdir /new; chroot /new / 2>/dev/null && echo CHROOTED; unshare -m true 2>/dev/null && echo UNSHARED
mknod /disk b 254 0 2>/dev/null; head -c 1 /disk 2>/dev/null | grep -q . && echo DISK
mount -t tmpfs none /mnt 2>/dev/null && echo MOUNTED
echo 1 2>/dev/null > /proc/sys/kernel/printk && echo SYSCTL
echo 1 2>/dev/null > /proc/sys/vm/drop_caches && echo SYSCTL
echo end
"""


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A token in a file, and on an abstract socket that counts who comes."""
    path = tmp_path / "secret"
    path.write_text(TOKEN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{TOKEN}")
        listener.listen()
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        yield path


@pytest.mark.root
@pytest.mark.parametrize("isolation", ["chroot"])
def test_nothing_of_the_builder_is_within_reach(isolation: str, tierce_with_busybox: Tierce, secret: Path) -> None:
    script = ATTEMPTS.replace("SECRET", str(secret)[1:]).replace("PIDS", str(os.getpid()))
    planted = Tierce(tierce_with_busybox.root, {**tierce_with_busybox.environment, "CI_TOKEN": TOKEN})
    result = planted("run", "--isolation", isolation, "-u", "0", "busybox", "sh", "-c", script)
    assert reached(result.stdout) == ["end"]


@pytest.mark.root
def test_no_other_way_out(tierce_with_busybox: Tierce, secret: Path, tmp_path: Path) -> None:
    """Processes and descriptors of the supervisor, calls past the filter, sockets, and a path that changes at exec."""
    outside = program_outside(tmp_path / "outside")
    tierce_with_busybox("build", "-q", "-t", "attempts", attempts_context(tmp_path / "context"))
    with listening(f"{TOKEN}-too"):
        words = ("/attempts", secret, outside, f"{TOKEN}-too")
        result = tierce_with_busybox("run", "--isolation", "chroot", "attempts", *words)
    assert reached(result.stdout) == ["end"]


@pytest.mark.parametrize("word", ["strict", "oci"])
def test_strict_refuses_where_there_are_no_namespaces(word: str) -> None:
    from image.errors import NotPermitted
    from runner.isolation.ladder import choose
    from runner.runtime.privileges import Cgroups, Privileges

    nobody = Privileges(uid=1000, capabilities=0, initial_user_namespace=True, cgroups=Cgroups({}), seccomp=True)
    with pytest.raises(NotPermitted, match="no namespaces: missing CAP_SYS_ADMIN"):
        choose(word, nobody)
