"""``tierce`` as an ordinary user, with subordinate ids and without: the real command line."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runner.network.outward import find_program
from tests.support.attempts import compile_static
from tests.support.cli import Tierce
from tests.support.layer_entries import layer_entries
from tests.support.ordinary_user import OrdinaryUser, ordinary_user
from tests.support.process import need

pytestmark = pytest.mark.root

_DOCKERFILE = """
FROM busybox
RUN --mount=type=tmpfs,target=/mnt mkdir -p /d/e && echo x > /d/f && ln -s f /d/l && mkfifo /d/p && ln /d/f /d/hard && chmod 4755 /d/f
RUN chown -R 33:44 /d && chown -h 55:66 /d/l
COPY --chown=7:8 Dockerfile /copied
USER 1000:1001
RUN touch /tmp/of-the-user
"""


@pytest.fixture(scope="module")
def user(busybox_archive: Path) -> Iterator[OrdinaryUser]:
    need("newuidmap")
    with ordinary_user(ranges=True) as made:
        made("load", "--input", made.give(busybox_archive))
        yield made
        made("system", "prune", "--all", "--force")


@pytest.fixture(scope="module")
def single(busybox_archive: Path) -> Iterator[OrdinaryUser]:
    """A user for whom one id alone is mapped."""
    with ordinary_user(ranges=False) as made:
        made("load", "--input", made.give(busybox_archive))
        yield made


@pytest.fixture(params=["ranges", "single"])
def either(request: pytest.FixtureRequest, user: OrdinaryUser, single: OrdinaryUser) -> OrdinaryUser:
    return user if request.param == "ranges" else single


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(_DOCKERFILE)
    return directory


def test_a_container_has_a_root_of_its_own(either: OrdinaryUser) -> None:
    said = either(
        "run", "--rm", "--network", "none", "busybox", "sh", "-c", "id -u; touch /x; stat -c %u:%g /x /bin"
    ).stdout
    assert said.split() == ["0", "0:0", "0:0"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param(["sh", "-c", "exit 7"], 7, id="its-exit-code"),
        pytest.param(["nothing-like-it"], 127, id="no-such-program"),
        pytest.param(["sh", "-c", "mount -t tmpfs x /mnt || exit 3"], 3, id="no-mounts"),
        pytest.param(["sh", "-c", "echo x > /proc/sys/kernel/hostname || exit 4"], 4, id="no-sysctl"),
    ],
)
def test_exit_codes(either: OrdinaryUser, command: list[str], code: int) -> None:
    assert either.attempt("run", "--rm", "--network", "none", "busybox", *command).code == code


def test_devices_and_host_network(either: OrdinaryUser) -> None:
    script = "echo x > /dev/null && head -c 3 /dev/urandom | wc -c && ls /sys/class/net"
    said = either("run", "--rm", "--network", "host", "busybox", "sh", "-c", script).stdout.split()
    assert said[0] == "3"
    assert "lo" in said


@pytest.mark.parametrize("flags", [["--memory", "64m"], ["--pids-limit", "10"], ["--cpus", "1"]], ids=lambda f: f[0])
def test_a_limit_that_cannot_be_set_is_an_error(user: OrdinaryUser, flags: list[str]) -> None:
    result = user.attempt("run", "--rm", *flags, "--network", "none", "busybox", "true")
    assert result.code == 125
    assert "an ordinary user can limit containers only where" in result.stderr


_IDENTITY = """
id -u; id -g; touch /tmp/f; mkdir /tmp/d; ln -s x /tmp/l; mkfifo /tmp/p; stat -c %u:%g /tmp/f /tmp/d /tmp/l /tmp/p
chown 0:0 /tmp/f 2>/dev/null || true
"""


def test_another_user_of_the_image(either: OrdinaryUser) -> None:
    said = either("run", "--rm", "--user", "1000:50", "--network", "none", "busybox", "sh", "-c", _IDENTITY).stdout
    assert said.split() == ["1000", "50", *["1000:50"] * 4]


_OWNERS = """
set -e
touch /a /b; chown 33:44 /a; chown 7 /b; chgrp 8 /b; ln -s a /l; chown -h 5:6 /l; mkfifo /p; chown 3:4 /p
mv /a /moved; ln /b /linked; cp -p /moved /copied; mv /l /l2; mkdir -m 2775 /s; chown 0:9 /s; mkdir /s/sub
mknod /null c 1 3; chown 0:6 /null
stat -c '%n %u:%g' /moved /b /linked /l2 /p /copied; stat -c '%n %t:%T %F' /null
chmod 4755 /moved; chown 1:1 /moved; stat -c %a /moved
chroot / chown 11:12 /b; stat -c %u:%g /linked
"""
_OWNED = """/moved 33:44
/b 7:8
/linked 7:8
/l2 5:6
/p 3:4
/copied 33:44
/null 1:3 character special file
755
11:12
"""


def test_owners_are_kept_with_one_id(single: OrdinaryUser) -> None:
    assert single("run", "--rm", "--network", "none", "busybox", "sh", "-c", _OWNERS).stdout == _OWNED


def test_the_same_digest_as_roots_build(either: OrdinaryUser, tierce_with_busybox: Tierce, context: Path) -> None:
    flags = ("build", "--quiet", "--network", "none", "--build-arg", "SOURCE_DATE_EPOCH=1700000000")
    assert either(*flags, either.give(context)).stdout == tierce_with_busybox(*flags, context).stdout


_DEBIAN = """
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends curl sudo openssh-server && rm -rf /var/lib/apt/lists/*
RUN useradd -m u1 && su u1 -c 'touch /tmp/by-u1; mkdir ~/d; ln -s a ~/d/l' && mknod /d c 1 3 && chown 0:6 /d
COPY --chown=u1 Dockerfile link /c/
USER u1
RUN touch /tmp/u
"""


@pytest.mark.network
@pytest.mark.slow
def test_packages_have_the_owners_of_roots_build(debian_archive: Path, tierce: Tierce, tmp_path: Path) -> None:
    """Type, mode, owner, link, device and file capabilities of each entry, with one id mapped."""
    need("pasta")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(_DEBIAN)
    (context / "link").symlink_to("Dockerfile")
    with ordinary_user(ranges=False) as user:
        user("load", "--input", user.give(debian_archive))
        user("build", "-t", "b", user.give(context))
        user("save", "--output", user.home / "b.tar", "b")
        theirs = layer_entries(user.home / "b.tar")
    tierce("load", "--input", debian_archive)
    tierce("build", "-t", "b", context)
    tierce("save", "--output", tmp_path / "b.tar", "b")
    assert theirs == layer_entries(tmp_path / "b.tar")


def test_commands_reach_a_container_that_runs(either: OrdinaryUser) -> None:
    """Each command is a process of its own, and the one that started the container has ended."""
    script = "trap 'echo bye; exit 5' TERM; echo up; touch /mark; while :; do sleep 0.1; done"
    either("run", "--detach", "--name", "box", "--network", "none", "busybox", "sh", "-c", script)
    try:
        assert either("exec", "box", "sh", "-c", "until test -e /mark; do :; done; id -u; hostname").stdout[:2] == "0\n"
        either("stop", "box")
        assert either("wait", "box").stdout == "5\n"
        assert either("logs", "box").stdout == "up\nbye\n"
        either("start", "box")
        either("kill", "box")
        assert either("wait", "box").stdout == "137\n"
    finally:
        either("rm", "--force", "box")


def test_another_command_attaches(either: OrdinaryUser) -> None:
    either("run", "--detach", "--interactive", "--name", "box", "--network", "none", "busybox", "cat")
    try:
        with either.start("attach", "box") as process:
            said, complained = process.communicate("hello\n", timeout=60)
        assert (process.returncode, said, complained) == (0, "hello\n", "")
    finally:
        either("rm", "--force", "box")


_HIDING = """
import os, sys
from runner.runtime.user_namespace import enter
from store.linux import mounts, processes
enter(os.environ)
processes.prctl(processes.PR_SET_DUMPABLE, int(sys.argv[1]))
print(os.stat("/proc/self/ns/user").st_ino, flush=True)
sys.stdin.read()
"""


def test_a_command_that_cannot_be_looked_into_is_passed_over(either: OrdinaryUser) -> None:
    """Such as one that asked for a weaker isolation: others share a namespace without it."""
    namespaces = []
    with ExitStack() as running:
        for dumpable in ("0", "1", "1", "0", "1"):
            process = running.enter_context(either.start_program("-c", _HIDING, dumpable))
            running.callback(process.kill)
            assert process.stdout is not None
            namespaces.append(process.stdout.readline())
    assert namespaces[0] != namespaces[1]
    assert set(namespaces[1:]) == {namespaces[1]}


_ON_OVERLAY = """
import os, sys
from pathlib import Path
from runner.runtime.user_namespace import enter
from store.linux import mounts, processes
uid, gid = os.geteuid(), os.getegid()
processes.unshare(processes.CLONE_NEWUSER | processes.CLONE_NEWNS)
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
    Path("/proc/self", name).write_text(text)
for name in ("lower", "upper", "work", "merged"):
    os.makedirs(name)
mounts.mount(b"overlay", b"merged", b"overlay", 0, b"lowerdir=lower,upperdir=upper,workdir=work,userxattr")
found = enter({"TIERCE_RUNTIME_DIR": os.path.abspath("run")}, Path("merged/store").absolute())
print(found.how, found.problem, os.listdir("merged/store"))
"""


def test_a_store_on_an_overlay_keeps_the_command_where_it_is(user: OrdinaryUser) -> None:
    with user.start_program("-c", _ON_OVERLAY) as process:
        said, complained = process.communicate(timeout=60)
    assert complained == ""
    assert re.fullmatch(
        r"no no overlay mounts on /\S+/merged/store: invalid argument \(inside a container\?\) \[\]\n", said
    )


def test_layers_of_another_form_are_not_used(busybox_archive: Path, tmp_path: Path) -> None:
    """What one made with an id mapped, the same user without a namespace and root would read differently."""
    if os.uname().machine != "x86_64":
        pytest.skip("needs x86-64, the one that the emulation knows")
    with ordinary_user(ranges=False) as other:
        other("load", "--input", other.give(busybox_archive))
        without = ("TIERCE_USER_NAMESPACE=no",)
        refused = other.attempt("run", "--rm", "busybox", "true", environ=without)
        assert refused.code == 125
        assert f"were made by user {other.uid} with one id and would not be the same" in refused.stderr
        assert "busybox" in other.attempt("images", environ=without).stdout
        roots = Tierce(other.home / ".local/share/tierce", {"TIERCE_RUNTIME_DIR": str(tmp_path)})
        assert "made by user" in roots.attempt("run", "--rm", "--network", "none", "busybox", "true").stderr
        assert other("run", "--rm", "--network", "none", "busybox", "echo", "fine").stdout == "fine\n"
        for words in (("system", "prune", "--all", "--force"), ("load", "-i", other.give(busybox_archive))):
            assert other.attempt(*words, environ=without).code == 0
        assert other.attempt("run", "--rm", "busybox", "echo", "new", environ=without).stdout == "new\n"


def test_volumes_belong_to_the_user(user: OrdinaryUser) -> None:
    place = user.home / "shared"
    user("run", "--rm", "--network", "none", "-v", f"{place}:/v", "busybox", "touch", "/v/made")
    assert (place / "made").stat().st_uid == user.uid


def need_a_way_out() -> None:
    if find_program() is None:
        pytest.skip("needs pasta (package passt) or slirp4netns")


def test_published_ports(user: OrdinaryUser) -> None:
    need_a_way_out()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ["sh", "-c", "echo hello | nc -l -p 80"]
    with user.start("run", "--rm", "-p", f"127.0.0.1:{port}:80", "busybox", *server) as process:
        try:
            assert _fetch(port) == b"hello\n"
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_networks_of_ones_own(either: OrdinaryUser) -> None:
    """Names and aliases, a published port, a network connected later, and nothing left when the last container goes."""
    need_a_way_out()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    either("network", "create", "front")
    either("network", "create", "--internal", "back")
    serve = "mkdir /w; echo hello > /w/index.html; exec httpd -f -p 80 -h /w"
    published = ("-p", f"127.0.0.1:{port}:80")
    try:
        either(
            "run", "-d", "--name", "web", "--network", "name=front,alias=www", *published, "busybox", "sh", "-c", serve
        )
        assert _get(port) == b"hello"
        ask = "wget -qO- http://web/ && wget -qO- http://www/"
        assert either("run", "--rm", "--network", "front", "busybox", "sh", "-c", ask).stdout == "hello\nhello\n"
        inner = ("run", "--rm", "--network", "back", "busybox", "wget", "-qO-", "http://web/")
        assert either.attempt(*inner).stdout == ""
        either("network", "connect", "back", "web")
        assert either(*inner).stdout == "hello\n"
        either("network", "disconnect", "front", "web")
        with socket.socket() as client:  # an internal network publishes nothing
            assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
        either("network", "disconnect", "back", "web")
        assert either.attempt(*inner).stdout == ""
        either("network", "create", "side")
        either("network", "connect", "side", "web")
        assert _get(port) == b"hello"
        either("network", "connect", "front", "web")
        either("network", "disconnect", "side", "web")
        assert _get(port) == b"hello"
    finally:
        either("rm", "-f", "web")
        either.attempt("network", "rm", "front", "back", "side")


def _get(port: int) -> bytes:
    """The last line of what a web server says, which may have to start yet: then there is nobody to forward to."""
    until = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return b"".join(iter(lambda: client.recv(4096), b"")).splitlines()[-1]
        except ConnectionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


_ECHO = """
#include <arpa/inet.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
    static char data[65536];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(7)}, from;
    int is_stream = fork() > 0, fd = socket(AF_INET, is_stream ? SOCK_STREAM : SOCK_DGRAM, 0);
    if (argc > 1) {  /* a client of the address, by datagrams */
        at.sin_addr.s_addr = inet_addr(argv[1]);
        return is_stream ? wait(0) < 0 : connect(fd, (void *)&at, sizeof at) || write(fd, "datagram\\n", 9) != 9
            || write(1, data, read(fd, data, sizeof data)) != 9;
    }
    if (bind(fd, (void *)&at, sizeof at) || (is_stream && listen(fd, 9))) return 1;
    if (!is_stream) write(1, "up\\n", 3);
    for (;;) {
        socklen_t size = sizeof from;
        int client = is_stream ? accept(fd, 0, 0) : fd;
        long length = recvfrom(client, data, sizeof data, 0, (void *)&from, &size);
        sendto(client, data, length, 0, is_stream ? 0 : (void *)&from, is_stream ? 0 : size);
        if (is_stream) close(client);
    }
}
"""


def test_streams_and_datagrams_on_ones_own_network(user: OrdinaryUser, tmp_path: Path) -> None:
    """Between containers by name, and from outside through published ports of either protocol."""
    need_a_way_out()
    compile_static(tmp_path / "echo", _ECHO)
    mounted = ("-v", f"{user.give(tmp_path / 'echo')}:/echo:ro")
    user("network", "create", "own")
    try:
        user(
            "run", "-d", "--name", "echo", "--network", "own", "-p", "127.0.0.1::7", "-p", "127.0.0.1::7/udp", *mounted,
            "busybox", "/echo",
        )  # fmt: skip
        address = user("inspect", "-f", "{{.NetworkSettings.Networks.own.IPAddress}}", "echo").stdout.strip()
        asked = ("sh", "-c", f"echo stream | nc -w 5 echo 7; /echo {address}")
        assert user("run", "--rm", "--network", "own", *mounted, "busybox", *asked).stdout == "stream\ndatagram\n"
        stream, datagrams = (int(user("port", "echo", which).stdout.rpartition(":")[2]) for which in ("7/tcp", "7/udp"))
        with socket.create_connection(("127.0.0.1", stream), timeout=10) as client:
            client.sendall(b"from outside")
            assert client.recv(100) == b"from outside"
        with ExitStack() as held:
            clients = [held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(3)]
            said = [bytes([number]) * 60_000 for number in range(3)]
            for client, data in zip(clients, said, strict=True):
                client.settimeout(10)
                client.sendto(data, ("127.0.0.1", datagrams))
            assert [client.recv(1 << 16) for client in clients] == said
    finally:
        user("rm", "-f", "echo")
        user("network", "rm", "own")


def _fetch(port: int) -> bytes:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                if data := connection.recv(100):
                    return data
        except OSError:
            pass
        time.sleep(0.05)
    return b""


def test_a_killed_launcher_takes_everything_with_it(user: OrdinaryUser) -> None:
    need_a_way_out()
    with user.start("run", "--rm", "busybox", "sh", "-c", "echo up; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.kill()
    assert user("run", "--rm", "--network", "none", "busybox", "echo", "next").stdout == "next\n"
    # pasta, the watcher and the container are looked for by ``nothing_left_behind``


def test_a_port_for_root_alone(user: OrdinaryUser) -> None:
    need_a_way_out()
    lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if lowest <= 80:
        pytest.skip("needs net.ipv4.ip_unprivileged_port_start above 80")
    result = user.attempt("run", "--rm", "-p", "80:80", "busybox", "true")
    assert result.code == 125
    assert "ip_unprivileged_port_start" in result.stderr


@pytest.mark.network
def test_the_network_of_a_build(user: OrdinaryUser, tmp_path: Path) -> None:
    need_a_way_out()
    (tmp_path / "c").mkdir()
    address = socket.gethostbyname("deb.debian.org")
    (tmp_path / "c/Dockerfile").write_text(
        f"FROM busybox\nRUN nc -w 5 {address} 80 </dev/null && ip route | grep default\n"
    )
    assert "10.0.2.2" in user("build", "--no-cache", user.give(tmp_path / "c")).stderr


def test_an_image_and_its_files_go(busybox_archive: Path, context: Path) -> None:
    need("newuidmap")
    with ordinary_user(ranges=True) as other:
        other("load", "--input", other.give(busybox_archive))
        other("build", "-t", "gone", "--network", "none", other.give(context))
        other("system", "prune", "--all", "--force")
        store = other.home / ".local/share/tierce"
        assert list(store.glob("overlay2/*/diff")) == []
        assert list((store / "blobs/sha256").iterdir()) == []


def test_system_info(user: OrdinaryUser, single: OrdinaryUser) -> None:
    rich, poor = (json.loads(one("system", "info", "--format", "json").stdout)["Privileges"] for one in (user, single))
    assert "65537 ids" in rich["Mode"]
    assert "one id" in poor["Mode"]
    assert "subordinate ids" in rich["Owners of files"]
    assert "records" in poor["Owners of files"]
    assert "usermod --add-subuids" in poor["To improve"]
    assert rich["Network"] == (find_program() or "neither pasta (package passt) nor slirp4netns is installed")
