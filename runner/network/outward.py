"""What leads an ordinary user's network namespace outside: pasta, else slirp4netns, a process beside it.

An ordinary user can't put an interface into the host's network. These programs stand between:
an interface of the namespace's own, whose packets become sockets of the user.

MTU 65520, as nothing of it is ever on a wire.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from image.errors import NotPermitted
from runner.network.ports import Port

ADDRESS: Final = "10.0.2.100"
_GATEWAY: Final = "10.0.2.2"
_MTU: Final = "65520"
_READY_TIMEOUT_MS: Final = 10_000
_SEARCH: Final = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")
_BIND: Final = 'mount --bind "$0" "$1" && shift && exec "$@"'


def find_program() -> str | None:
    """The path of pasta or slirp4netns, whichever is installed."""
    candidates = (f"{place}/{name}" for name in ("pasta", "slirp4netns") for place in _SEARCH)
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def missing() -> str:
    """What keeps an ordinary user's container from having a network; "" when nothing does."""
    if find_program() is None:
        return "neither pasta (package passt) nor slirp4netns is installed"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened (as root: chmod 666 /dev/net/tun)"
    return ""


def start(namespace: str, directory: Path, ports: Sequence[Port] = ()) -> Process:
    """Connect the network namespace at this path; what it needs meanwhile is in ``directory``. Raises NotPermitted."""
    program = str(find_program())
    begin = _start_pasta if os.path.basename(program) == "pasta" else _start_slirp
    return begin(program, namespace, directory, ports)


# --- pasta ----------------------------------------------------------------------------------


def pasta_arguments(namespace: str, ready: str, ports: Sequence[Port]) -> list[str]:
    """The command line of pasta, after its name. Pure."""
    words = ["--config-net", "--quiet", "--foreground", "--no-map-gw", "--no-dhcp", "--mtu", _MTU]
    words += ["--address", ADDRESS, "--netmask", "24", "--gateway", _GATEWAY, "--ipv4-only"]
    words += ["--ns-ifname", "eth0", "--tcp-ns", "none", "--udp-ns", "none", "--pid", ready]
    for option, protocol in (("--tcp-ports", "tcp"), ("--udp-ports", "udp")):
        chosen = [_pasta_port(port) for port in ports if port.protocol == protocol]
        for word in chosen or ["none"]:
            words += [option, word]
    return [*words, "--netns", namespace]


def _pasta_port(port: Port) -> str:
    address = "" if port.host_address == "0.0.0.0" else f"{port.host_address}/"  # noqa: S104  # as docker means it
    return f"{address}{port.host_port}:{port.container_port}"


def _start_pasta(program: str, namespace: str, directory: Path, ports: Sequence[Port]) -> Process:
    """Pasta writes its pid when all is set up: into a FIFO, which tells the moment.

    It gives up its capabilities before it opens the namespace, and /proc/PID/ns shows it none of
    a process with more: so the namespace is bound to a file, in a mount namespace of pasta's own.
    """
    ready, bound = directory / "pasta.ready", directory / "netns"
    os.mkfifo(ready, 0o600)
    bound.touch(mode=0o600)
    fd = os.open(ready, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        arguments = pasta_arguments(str(bound), str(ready), ports)
        binding = ["unshare", "--mount", "sh", "-c", _BIND, namespace, str(bound)]
        process = Process([*binding, program, *arguments], directory / "pasta.log", name="pasta")
        process.await_ready(fd)
    finally:
        os.close(fd)
        ready.unlink()
    return process


# --- slirp4netns ----------------------------------------------------------------------------


def _start_slirp(program: str, namespace: str, directory: Path, ports: Sequence[Port]) -> Process:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    api = "slirp.sock"  # by descriptors: the whole path is longer than a socket's may be
    arguments = ["--configure", f"--mtu={_MTU}", "--disable-host-loopback", "--netns-type=path", "--ready-fd=3"]
    arguments += [f"--api-socket=/proc/self/fd/4/{api}", namespace, "eth0"]
    try:
        process = Process(
            [program, *arguments], directory / "slirp.log", name="slirp4netns", descriptors=[writer, place]
        )
        os.close(writer)
        writer = -1
        process.await_ready(reader)
    except BaseException:
        os.close(place)
        raise
    finally:
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)
    try:
        for request in slirp_requests(ports):
            _ask_slirp(f"/proc/self/fd/{place}/{api}", request)
    except BaseException:
        process.end()
        raise
    finally:
        os.close(place)
    return process


def slirp_requests(ports: Sequence[Port]) -> Iterator[bytes]:
    """What slirp4netns is asked to forward. Pure."""
    for port in ports:
        arguments = {
            "proto": port.protocol, "host_addr": port.host_address,
            "host_port": port.host_port, "guest_port": port.container_port,
        }  # fmt: skip
        yield json.dumps({"execute": "add_hostfwd", "arguments": arguments}).encode()


def _ask_slirp(api: str, request: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_READY_TIMEOUT_MS / 1000)
        connection.connect(api)
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        reply = connection.recv(4096)
    if b'"error"' in reply:
        raise NotPermitted(f"cannot publish a port: slirp4netns: {reply.decode(errors='replace')[:200]}")


# --- the process ----------------------------------------------------------------------------


class Process:
    """A program that lives as long as this object, and dies with this process."""

    def __init__(self, argv: list[str], log: Path, *, name: str, descriptors: Sequence[int] = ()) -> None:
        """``descriptors`` become 3 and up; they stay the caller's. Raises NotPermitted."""
        self._name = name
        self._log = log
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3 + len(descriptors)) for fd in descriptors]
        actions += [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(moved, 3)]
        tied = ["setpriv", "--pdeathsig", "KILL", *argv]  # from util-linux: the signal survives its exec
        environ = {"PATH": ":".join(_SEARCH)}
        try:
            self.pid = os.posix_spawnp(
                tied[0], tied, environ, file_actions=actions, setsid=True, setsigmask=(),
                setsigdef=[signal.SIGPIPE],  # Python ignores it, and pasta takes an ignored one for a failure
            )  # fmt: skip
        except OSError as error:
            raise NotPermitted(f"cannot start {self._name}: {os.strerror(error.errno or 0).lower()}") from error
        finally:
            for fd in moved:
                os.close(fd)
        self._pidfd = os.pidfd_open(self.pid)

    def await_ready(self, fd: int) -> None:
        """Until something is written to ``fd``. Raises NotPermitted with what the program said otherwise."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        found = dict(poll.poll(_READY_TIMEOUT_MS))
        if not found.get(fd, 0) & select.POLLIN:
            said = self._said()
            self.end()
            raise NotPermitted(f"cannot give the container a network: {self._name}: {said}")

    def _said(self) -> str:
        with suppress(OSError):
            lines = self._log.read_text(errors="replace").splitlines()
            useful = [line for line in lines if "syslog" not in line and line.strip()]
            return "; ".join(useful[-3:]).lower() or "it did not start"
        return "it did not start"

    def end(self) -> None:
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self._pidfd)
            self._pidfd = -1
