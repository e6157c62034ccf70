"""Names on users' networks: a small DNS server beside each container, without a daemon.

Its sockets are inside the container's network namespace, on ports of the kernel's choosing that
a rule there puts behind 127.0.0.11:53, so that port 53 stays free for the container; the
process that serves them is outside, and asks the host's own name servers for what is not here.

Nothing is remembered between questions but which are open: the records in the runtime directory
are read for each, so newcomers are seen at once. There are no timers: a client asks again, and
a repeated question goes to the next server.

Imports only what a bare interpreter has: it lives in the process that watches a container.

Spec: RFC 1035, RFC 3596.
"""

from __future__ import annotations

import _socket
import os
import select
from struct import pack, unpack_from

from store.locks import is_held

ADDRESS = "127.0.0.11"
TTL_S = 600
_A, _PTR, _AAAA, _IN = 1, 12, 28, 1
_NO_ERROR, _SERVER_FAILED, _NO_SUCH_NAME = 0, 2, 3
_RESPONSE, _TRUNCATED, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x200, 0x100, 0x80
_LARGEST = 512
"""Bytes of an answer by UDP to a client that does not say what it takes."""
_MOST_OPEN = 128
_RESOLV_CONF = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


def open_sockets() -> list[int]:
    """A socket for UDP and one that listens for TCP, in this thread's network namespace, where loopback is up."""
    sockets = []
    for kind in (_socket.SOCK_DGRAM, _socket.SOCK_STREAM):
        made = _socket.socket(_socket.AF_INET, kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
        made.bind((ADDRESS, 0))
        if kind == _socket.SOCK_STREAM:
            made.listen(16)
        sockets.append(made.detach())
    return sockets


def ports_of(descriptors: list[int]) -> tuple[int, int]:
    """Where these sockets listen: the ports for UDP and for TCP."""
    found = []
    for fd in descriptors:
        opened = _socket.socket(fileno=os.dup(fd))
        found.append(opened.getsockname()[1])
        opened.close()
    return found[0], found[1]


def redirection(udp: int, tcp: int) -> str:
    """nft commands for the container's namespace: these ports behind port 53."""
    rules = [
        f"ip daddr {ADDRESS} {protocol} dport 53 dnat to {ADDRESS}:{port}"
        for protocol, port in (("udp", udp), ("tcp", tcp))
    ]
    text = "\n".join(rules)
    return f"""\
table ip tierce_names
delete table ip tierce_names
table ip tierce_names {{
  chain output {{
    type nat hook output priority -100;
{text}
  }}
}}
"""


# --- what is known ------------------------------------------------------------------------


class Place:
    """One container on one network, as its record says."""

    def __init__(self, network: str, network_name: str, addresses: tuple[bytes, ...], names: tuple[str, ...]) -> None:
        self.network = network
        self.network_name = network_name
        self.addresses = addresses
        self.names = names


class Known:
    """A container's record: see ``endpoints``, which this reads without its imports."""

    def __init__(self, directory: str) -> None:
        self.places: list[Place] = []
        self.servers: list[str] = []
        self.leads_outside = False
        try:
            with open(f"{directory}/network") as file:
                lines = file.read().splitlines()
        except OSError:
            return
        for line in lines:
            kind, *words = line.split(" ")
            if kind == "server":
                self.servers.append(words[0])
            elif kind in ("on", "within"):
                self.leads_outside |= kind == "on"
                network, network_name, _, _, four, six, _, aliases = words
                packed = [_packed(text) for text in (four, six) if text not in ("-", "0.0.0.0")]  # noqa: S104
                names = tuple(aliases.lower().split(",")) if aliases != "-" else ()
                self.places.append(Place(network, network_name, tuple(packed), names))


def _packed(text: str) -> bytes:
    return _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)


def neighbours(directory: str) -> list[Place]:
    """Every living container's place on the networks of this one, its own too."""
    own = {place.network for place in Known(directory).places}
    parent = os.path.dirname(directory)
    found: list[Place] = []
    for name in sorted(os.listdir(parent)):
        one = f"{parent}/{name}"
        places = [place for place in Known(one).places if place.network in own]
        if places and _is_alive(one):
            found += places
    return found


def _is_alive(directory: str) -> bool:
    """Whether its lease is locked; see ``runner.runtime.state``."""
    try:
        return is_held(f"{directory}/lease")
    except OSError:
        return False


def addresses_of(name: str, places: list[Place]) -> list[bytes]:
    """Of both families, of all that are called so: ``NAME`` or ``NAME.NETWORK``. In random order, to share load."""
    found: list[bytes] = []
    for place in places:
        if name in place.names or name in [f"{own}.{place.network_name.lower()}" for own in place.names]:
            found += place.addresses
    return sorted(found, key=lambda _: os.urandom(2))


def name_of(name: str, places: list[Place]) -> str:
    """For a name below in-addr.arpa or ip6.arpa: ``NAME.NETWORK``, or ""."""
    address = _reversed(name)
    for place in places:
        if address in place.addresses and place.names:
            return f"{place.names[0]}.{place.network_name}"
    return ""


def _reversed(name: str) -> bytes:
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return bytes(int(label) for label in labels[3::-1])
        if name.endswith(".ip6.arpa") and len(labels) == 34:
            return bytes.fromhex("".join(labels[31::-1]))
    except ValueError:
        pass
    return b""


# --- messages -----------------------------------------------------------------------------


class Question:
    """The one question of a query. Raises ValueError when the message is none."""

    def __init__(self, message: bytes) -> None:
        if len(message) < 12:
            raise ValueError("short")
        self.id, flags, count = unpack_from(">HHH", message)
        if flags & 0xF800 or count != 1:
            raise ValueError("not a standard query")
        labels = []
        position = 12
        while size := message[position : position + 1]:
            position += 1
            if size == b"\0":
                break
            if size[0] > 63:
                raise ValueError("compressed")
            labels.append(message[position : position + size[0]].decode("ascii", "replace"))
            position += size[0]
        if len(message) < position + 4:
            raise ValueError("short")
        self.name = ".".join(labels).lower()
        self.type, self.cls = unpack_from(">HH", message, position)
        self.raw = message[12 : position + 4]
        self._flags = _RESPONSE | _RECURSION_AVAILABLE | flags & _RECURSION_DESIRED

    def response(self, code: int, answers: list[tuple[int, bytes]], *, limit: int = 0xFFFF) -> bytes:
        """With as many answers (type, data) as the limit in bytes lets through."""
        body, count, flags = self.raw, 0, self._flags | code
        for kind, data in answers:
            entry = pack(">HHHIH", 0xC00C, kind, _IN, TTL_S, len(data)) + data
            if 12 + len(body) + len(entry) > limit:
                flags |= _TRUNCATED
                break
            body += entry
            count += 1
        return pack(">HHHHHH", self.id, flags, 1, count, 0, 0) + body


def answer(question: Question, places: list[Place]) -> list[tuple[int, bytes]] | None:
    """What is known here: no answers when the name has nothing of this type; None when it is not of here."""
    if question.cls != _IN:
        return None
    if question.type == _PTR:
        name = name_of(question.name, places)
        return [(_PTR, _encoded(name))] if name else None
    found = addresses_of(question.name, places)
    if not found:
        return None
    size = {_A: 4, _AAAA: 16}.get(question.type)
    return [(question.type, address) for address in found if len(address) == size]


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def upstream_servers(paths: tuple[str, ...] = _RESOLV_CONF) -> list[str]:
    """The host's, systemd-resolved's stub too: the process that asks is on the host's network."""
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                words = [line.split() for line in file]
        except OSError:
            continue
        servers = [line[1].partition("%")[0] for line in words if len(line) > 1 and line[0] == "nameserver"]
        if servers:
            return servers
    return []


# --- serving ------------------------------------------------------------------------------


class _Asked:
    """A question by UDP that an outer server is to answer."""

    def __init__(self, question: Question, message: bytes, client: tuple[str, int], servers: list[str]) -> None:
        self.question = question
        self.message = message
        self.client = client
        self.servers = servers
        self.socket: _socket.socket | None = None


class Resolver:
    """Serves one container. Poll ``fileno`` for reading, then call ``serve``, which never blocks."""

    def __init__(self, directory: str, descriptors: list[int]) -> None:
        """``directory`` is the container's, in the runtime directory; takes over the descriptors of ``open_sockets``."""
        self._directory = directory
        self._datagrams, self._listener = (_socket.socket(fileno=fd) for fd in descriptors)
        self._poll = select.epoll()
        self._poll.register(self._datagrams.fileno(), select.EPOLLIN)
        self._poll.register(self._listener.fileno(), select.EPOLLIN)
        self._asked: dict[int, _Asked] = {}
        self._streams: dict[int, _Stream] = {}

    def fileno(self) -> int:
        return self._poll.fileno()

    @property
    def descriptors(self) -> tuple[int, int]:
        """Those of ``open_sockets``, for another program of this process to serve."""
        return self._datagrams.fileno(), self._listener.fileno()

    def close(self) -> None:
        for asked in list(self._asked.values()):
            self._forget(asked)
        for stream in list(self._streams.values()):
            self._end(stream)
        self._poll.close()
        self._datagrams.close()
        self._listener.close()

    def serve(self) -> None:
        """Whatever can be done now."""
        for fd, _ in self._poll.poll(0):
            if fd == self._datagrams.fileno():
                self._receive()
            elif fd == self._listener.fileno():
                self._accept()
            elif fd in self._asked:
                self._pass_back(self._asked[fd])
            elif fd in self._streams:
                self._carry(self._streams[fd], fd)

    def _answer_here(self, question: Question, limit: int) -> bytes | None:
        """None when somebody else must be asked."""
        answers = answer(question, neighbours(self._directory))
        if answers is not None:
            return question.response(_NO_ERROR, answers, limit=limit)
        if not self._servers():
            return question.response(_SERVER_FAILED, [])
        return None

    def _servers(self) -> list[str]:
        """A container that is on internal networks alone has none: names could carry data out."""
        known = Known(self._directory)
        return (known.servers or upstream_servers()) if known.leads_outside else []

    # --- UDP

    def _receive(self) -> None:
        try:
            message, client = self._datagrams.recvfrom(4096)
            question = Question(message)
        except (OSError, ValueError):
            return
        response = self._answer_here(question, _LARGEST)
        if response is not None:
            self._send(response, client)
            return
        servers = self._servers()
        for earlier in list(self._asked.values()):
            if earlier.client == client and earlier.message == message:  # asked again: the first server is silent
                servers = earlier.servers or servers
                self._forget(earlier)
        if len(self._asked) >= _MOST_OPEN:
            self._forget(next(iter(self._asked.values())))
        self._ask(_Asked(question, message, client, servers))

    def _ask(self, asked: _Asked) -> None:
        """The next server that can be sent to; none left is a failure."""
        while asked.servers:
            server, asked.servers = asked.servers[0], asked.servers[1:]
            made = None
            try:
                made = _outward(server, _socket.SOCK_DGRAM)
                made.connect((server, 53))
                made.send(asked.message)
            except OSError:
                if made is not None:
                    made.close()
                continue
            asked.socket = made
            self._asked[made.fileno()] = asked
            self._poll.register(made.fileno(), select.EPOLLIN)
            return
        self._send(asked.question.response(_SERVER_FAILED, []), asked.client)

    def _pass_back(self, asked: _Asked) -> None:
        assert asked.socket is not None
        try:
            response = asked.socket.recv(65535)
        except BlockingIOError:
            return
        except OSError:  # refused: nobody is there
            self._forget(asked)
            self._ask(asked)
            return
        if response[:2] != asked.message[:2]:
            return  # not to this question
        self._forget(asked)
        self._send(response, asked.client)

    def _forget(self, asked: _Asked) -> None:
        if asked.socket is not None:
            del self._asked[asked.socket.fileno()]
            asked.socket.close()
            asked.socket = None

    def _send(self, response: bytes, client: tuple[str, int]) -> None:
        try:  # noqa: SIM105  # no contextlib here
            self._datagrams.sendto(response, client)
        except OSError:
            pass  # it does not wait any more

    # --- TCP

    def _accept(self) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # what socket.accept calls
        except OSError:
            return
        accepted = _socket.socket(fileno=fd)
        accepted.setblocking(False)
        stream = _Stream(accepted)
        if len(self._streams) >= _MOST_OPEN:
            self._end(next(iter(self._streams.values())))
        self._streams[fd] = stream
        self._poll.register(fd, select.EPOLLIN)

    def _carry(self, stream: _Stream, fd: int) -> None:
        try:
            if stream.outer is not None and fd == stream.outer.fileno():
                self._carry_back(stream, stream.outer)
            else:
                self._carry_in(stream)
        except (OSError, ValueError, EOFError):
            self._end(stream)

    def _carry_in(self, stream: _Stream) -> None:
        data = stream.client.recv(65535)
        if not data:
            raise EOFError
        stream.pending += data
        if stream.outer is not None:
            if stream.connected:
                stream.flush()
            return
        while (message := stream.message()) is not None:
            response = self._answer_here(Question(message), 0xFFFF)
            if response is None:
                self._connect(stream)  # from here on this connection is the outer server's
                return
            stream.client.send(pack(">H", len(response)) + response)
            stream.pending = stream.pending[2 + len(message) :]

    def _connect(self, stream: _Stream) -> None:
        server = self._servers()[0]
        stream.outer = _outward(server, _socket.SOCK_STREAM)
        self._streams[stream.outer.fileno()] = stream
        self._poll.register(stream.outer.fileno(), select.EPOLLIN | select.EPOLLOUT)
        stream.outer.connect_ex((server, 53))  # how it went is seen when it can be written to

    def _carry_back(self, stream: _Stream, outer: _socket.socket) -> None:
        if not stream.connected:
            error = outer.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            if error:
                raise OSError(error, "connect")
            stream.connected = True
            self._poll.modify(outer.fileno(), select.EPOLLIN)
            stream.flush()
            return
        data = outer.recv(65535)
        if not data:
            raise EOFError
        stream.client.send(data)

    def _end(self, stream: _Stream) -> None:
        for one in (stream.client, stream.outer):
            if one is not None and self._streams.pop(one.fileno(), None) is not None:
                one.close()


class _Stream:
    """A client's connection, and the one to an outer server that it is joined to."""

    def __init__(self, client: _socket.socket) -> None:
        self.client = client
        self.outer: _socket.socket | None = None
        self.connected = False
        self.pending = b""

    def message(self) -> bytes | None:
        """The first whole one that has come."""
        size = int.from_bytes(self.pending[:2], "big")
        return self.pending[2 : 2 + size] if len(self.pending) >= 2 + size > 2 else None

    def flush(self) -> None:
        assert self.outer is not None
        if self.pending:
            self.pending = self.pending[self.outer.send(self.pending) :]


def _outward(server: str, kind: int) -> _socket.socket:
    family = _socket.AF_INET6 if ":" in server else _socket.AF_INET
    return _socket.socket(family, kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
