"""The resolver's messages as values, and the whole of it against an outer server on loopback."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack

import pytest

from runner.network import resolver
from runner.network.resolver import Place, Question, Resolver, addresses_of, answer, name_of

A, PTR, MX, AAAA = 1, 12, 15, 28
FOUR, SIX = bytes((10, 1, 0, 2)), socket.inet_pton(socket.AF_INET6, "fd00::2")
PLACES = [
    Place("n1", "web", (FOUR, SIX), ("db", "0123abc")),
    Place("n1", "web", (bytes((10, 1, 0, 3)),), ("app", "db")),
]


def query(name: str, kind: int = A, *, identity: int = 7, cls: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    return pack(">HHHHHH", identity, 0x100, 1, 0, 0, 0) + labels + pack(">HH", kind, cls)


class TestMessages:
    @pytest.mark.parametrize(
        "message",
        [
            b"",
            b"x" * 11,
            query("a")[:-1],
            query("a")[:14],
            pack(">HHHHHH", 1, 0x8100, 1, 0, 0, 0) + query("a")[12:],
            pack(">HHHHHH", 1, 0x100, 2, 0, 0, 0) + query("a")[12:],
            pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
            pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\x3f" + b"a" * 20,
        ],
        ids=["empty", "short", "cut", "no type", "a response", "two questions", "compressed", "label too long"],
    )
    def test_what_is_no_question(self, message: bytes) -> None:
        with pytest.raises(ValueError, match=r"\w"):
            Question(message)

    def test_a_question(self) -> None:
        question = Question(query("DB.Web", AAAA))
        assert (question.name, question.type, question.id) == ("db.web", AAAA, 7)

    def test_a_response_is_cut_to_what_the_client_takes(self) -> None:
        response = Question(query("db")).response(0, [(A, FOUR)] * 100, limit=512)
        assert len(response) <= 512
        assert response[2] & 2, "TC"
        assert int.from_bytes(response[6:8], "big") == (512 - 12 - 8) // 16

    @pytest.mark.parametrize(
        ("name", "kind", "expected"),
        [
            ("db", A, [FOUR, bytes((10, 1, 0, 3))]),
            ("db", AAAA, [SIX]),
            ("app", AAAA, []),
            ("app", MX, []),
            ("app.web", A, [bytes((10, 1, 0, 3))]),
            ("absent", A, None),
            ("example.org", A, None),
        ],
    )
    def test_answers(self, name: str, kind: int, expected: list[bytes] | None) -> None:
        found = answer(Question(query(name, kind)), PLACES)
        assert (None if found is None else sorted(data for _, data in found)) == expected

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("2.0.1.10.in-addr.arpa", "db.web"),
            ("9.0.1.10.in-addr.arpa", ""),
            ("x.0.1.10.in-addr.arpa", ""),
            ("999.0.1.10.in-addr.arpa", ""),
            (".".join(reversed(SIX.hex())) + ".ip6.arpa", "db.web"),
        ],
    )
    def test_names_of_addresses(self, name: str, expected: str) -> None:
        assert name_of(name, PLACES) == expected

    def test_another_class_is_not_ours(self) -> None:
        assert answer(Question(query("db", cls=3)), PLACES) is None

    def test_unknown_names_have_no_addresses(self) -> None:
        assert addresses_of("", PLACES) == []


class Site:
    """Two containers' records, one locked lease each, and an outer server."""

    def __init__(self, root: Path) -> None:
        self.containers = root / "containers"
        self.leases: list[int] = []

    def add(self, name: str, address: str, *, kind: str = "on", server: str = "", network: str = "n1") -> Path:
        directory = self.containers / name
        directory.mkdir(parents=True)
        lines = [f"name {name}", *([f"server {server}"] if server else [])]
        lines.append(f"{kind} {network} web eth0 100 {address} - 02:00:00:00:00:01 {name}")
        (directory / "network").write_text("".join(f"{line}\n" for line in lines))
        self.leases.append(os.open(directory / "lease", os.O_RDWR | os.O_CREAT))
        fcntl.flock(self.leases[-1], fcntl.LOCK_EX)
        return directory


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    for fd in made.leases:
        os.close(fd)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], tuple[int, int]]]:
    """Start a resolver for a container's directory: where it answers, for UDP and TCP alike."""
    monkeypatch.setattr(resolver, "ADDRESS", "127.0.0.1")
    stop_reader, stop = os.pipe()
    threads: list[threading.Thread] = []

    def start(directory: Path) -> tuple[int, int]:
        descriptors = resolver.open_sockets()
        ports = [socket.socket(fileno=os.dup(fd)) for fd in descriptors]
        numbers = [one.getsockname()[1] for one in ports]
        for one in ports:
            one.close()
        serving = Resolver(str(directory), descriptors)

        def loop() -> None:
            while stop_reader not in select.select([serving.fileno(), stop_reader], [], [])[0]:
                serving.serve()
            serving.close()

        threads.append(threading.Thread(target=loop))
        threads[-1].start()
        return numbers[0], numbers[1]

    yield start
    os.write(stop, b"x")
    for thread in threads:
        thread.join()
    os.close(stop)
    os.close(stop_reader)


def ask(port: int, message: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(message, ("127.0.0.1", port))
        return client.recv(4096)


def ask_by_tcp(port: int, *messages: bytes) -> list[bytes]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        found = []
        for message in messages:
            client.sendall(len(message).to_bytes(2, "big") + message)
            with client.makefile("rb", buffering=0) as reader:
                size = int.from_bytes(reader.read(2), "big")
                found.append(reader.read(size))
        return found


def code(response: bytes) -> int:
    return response[3] & 15


class TestServing:
    def test_only_the_living_are_known(self, site: Site, served: Callable[[Path], tuple[int, int]]) -> None:
        own = site.add("one", "10.1.0.2", kind="within")
        site.add("two", "10.1.0.3", kind="within")
        site.add("other", "10.9.0.3", kind="within", network="n2")
        udp, _ = served(own)
        assert ask(udp, query("two"))[-4:] == bytes((10, 1, 0, 3))
        os.close(site.leases.pop(1))
        assert code(ask(udp, query("two"))) == 2
        assert code(ask(udp, query("other"))) == 2

    def test_internal_networks_ask_nobody_outside(self, site: Site, served: Callable[[Path], tuple[int, int]]) -> None:
        udp, tcp = served(site.add("one", "10.1.0.2", kind="within", server="127.0.0.1"))
        assert code(ask(udp, query("secret.example.org"))) == 2
        assert code(ask_by_tcp(tcp, query("secret.example.org"))[0]) == 2

    def test_tcp_several_questions_on_one_connection(
        self, site: Site, served: Callable[[Path], tuple[int, int]]
    ) -> None:
        _, tcp = served(site.add("one", "10.1.0.2"))
        four, six = ask_by_tcp(tcp, query("one"), query("one", AAAA))
        assert four[-4:] == bytes((10, 1, 0, 2))
        assert (code(six), six[6:8]) == (0, b"\0\0")

    def test_nonsense_is_dropped_and_service_goes_on(
        self, site: Site, served: Callable[[Path], tuple[int, int]]
    ) -> None:
        udp, tcp = served(site.add("one", "10.1.0.2"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for junk in (b"", b"x", os.urandom(60), b"\xff" * 512):
                client.sendto(junk, ("127.0.0.1", udp))
        with socket.create_connection(("127.0.0.1", tcp), timeout=5) as client:
            client.sendall(b"\0\4junk")
            assert client.recv(10) == b""
        assert code(ask(udp, query("one"))) == 0

    def test_no_server_answers(self, site: Site, served: Callable[[Path], tuple[int, int]]) -> None:
        """127.7.7.7 refuses: nobody listens there."""
        udp, tcp = served(site.add("one", "10.1.0.2", server="127.7.7.7"))
        assert code(ask(udp, query("example.org"))) == 2
        with socket.create_connection(("127.0.0.1", tcp), timeout=5) as client:
            message = query("example.org")
            client.sendall(len(message).to_bytes(2, "big") + message)
            assert client.recv(10) == b"", "the connection ends as the outer one does"


@pytest.mark.root
class TestForwarding:
    def test_by_udp_and_tcp_to_the_second_server(self, tmp_path: Path) -> None:
        """In a network namespace of its own, where port 53 is ours to take."""
        command = ["unshare", "--net", sys.executable, "-c", _FORWARDING, str(tmp_path)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=60
        )
        assert (done.stdout, done.stderr) == ("udp b'outer'\ntcp b'outer'\nsilent then b'outer'\n", "")


_FORWARDING = """
import select, socket, subprocess, sys, threading
from pathlib import Path
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
from runner.network import resolver
from tests.runner.test_network_resolver import Site, query

def outer(kind, address):
    made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, 53))
    return made

udp, tcp, silent = outer(socket.SOCK_DGRAM, "127.0.0.9"), outer(socket.SOCK_STREAM, "127.0.0.9"), outer(socket.SOCK_DGRAM, "127.0.0.8")
tcp.listen()

def answer_udp():
    while True:
        message, client = udp.recvfrom(4096)
        udp.sendto(message[:2] + b"outer", client)

def answer_tcp():
    client, _ = tcp.accept()
    size = int.from_bytes(client.recv(2), "big")
    message = client.recv(size)
    client.sendall(b"\\0\\7" + message[:2] + b"outer")

for act in (answer_udp, answer_tcp):
    threading.Thread(target=act, daemon=True).start()

site = Site(Path(sys.argv[1]))
def serve(directory):
    descriptors = resolver.open_sockets()
    ports = [socket.socket(fileno=__import__("os").dup(fd)).getsockname()[1] for fd in descriptors]
    one = resolver.Resolver(str(directory), descriptors)
    def loop():
        while True:
            select.select([one], [], [])
            one.serve()
    threading.Thread(target=loop, daemon=True).start()
    return ports

first = serve(site.add("one", "10.1.0.2", server="127.0.0.9"))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(10)
client.sendto(query("example.org"), ("127.0.0.11", first[0]))
print("udp", client.recv(100)[2:])
with socket.create_connection(("127.0.0.11", first[1])) as stream:
    message = query("example.org")
    stream.sendall(len(message).to_bytes(2, "big") + message)
    print("tcp", stream.recv(100)[4:])
directory = site.add("two", "10.1.0.3", server="127.0.0.8")
(directory / "network").write_text((directory / "network").read_text() + "server 127.0.0.9\\n")
second = serve(directory)
client.settimeout(0.5)
while True:
    client.sendto(query("example.org"), ("127.0.0.11", second[0]))
    try:
        print("silent then", client.recv(100)[2:])
        break
    except TimeoutError:
        pass
"""
