"""With other people's programs: Docker Distribution, skopeo, docker and podman."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import cast

import pytest

from image.digest import Digest
from image.errors import PolicyRejected, RegistryError
from image.reference import Reference
from store.images import ImageFacts
from store.store import Store
from tests.support.dockerd import Docker
from tests.support.podman import Podman
from tests.support.process import command, need
from tests.support.registry import Login, Registry, registry
from tests.support.tiny_image import ARM64, TinyImage, add_to_store, tiny_image, tiny_index
from tests.support.transfers import OPTIONS, anonymous_registries
from transfer.archives import load, save
from transfer.copy import CopyOptions, copy
from transfer.credentials import CredentialFiles, Credentials
from transfer.pull import pull
from transfer.push import push
from transfer.registries import Registries, RegistryOptions
from transfer.registries_conf.files import ConfFiles
from transfer.registries_conf.files import load as load_conf
from transfer.registry.challenge import Credential
from transfer.registry.retry import Retry
from transfer.transports.address import Places, open_sink, open_source
from transfer.transports.local import StoreSink
from transfer.transports.registry import RegistrySource

pytestmark = pytest.mark.peer

IMAGE = tiny_image({"a/b.txt": b"hello" * 1000}, {"c": bytes(range(256)) * 8000})
DOCKER_IMAGE = tiny_image({"a": b"1"}, docker_types=True)
BOB = Login("bob", "hunter2")

Copier = Callable[..., str]


def skopeo(*args: str | Path) -> str:
    return command([need("skopeo"), *args])


@pytest.fixture
def run(store: Store, registries: Registries) -> Copier:
    """Copies, and gives the digest at the destination."""
    places = Places(lambda: store, registries)

    def run(source: str, sink: str, options: CopyOptions = OPTIONS) -> str:
        with ExitStack() as stack:
            opened = stack.enter_context(open_source(source, places))
            place = stack.enter_context(open_sink(sink, places))
            return str(copy(opened, place, options).descriptor.digest)

    return run


@pytest.fixture(scope="module")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry"), login=BOB, tls=True) as running:
        yield running


class TestSkopeo:
    @pytest.mark.parametrize("image", [IMAGE, DOCKER_IMAGE], ids=["oci", "docker-v2s2"])
    def test_reads_what_we_push(
        self, open_registry: Registry, store: Store, registries: Registries, image: TinyImage
    ) -> None:
        add_to_store(store, image, "app:1")
        name = open_registry.name(f"pushed-{image.manifest.digest.short}")
        push("app:1", Reference.parse(f"{name}:1"), store, registries, OPTIONS)
        raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}:1")
        assert raw.encode() == image.manifest.raw

    @pytest.mark.parametrize(
        "sink", ["oci:{}/x:1", "oci-archive:{}/x.tar:1", "dir:{}/x", "docker-archive:{}/x.tar:app:1"], ids=lambda s: s.partition(":")[0]
    )  # fmt: skip
    def test_reads_what_we_write(self, store: Store, run: Copier, tmp_path: Path, sink: str) -> None:
        """It also copies it, which verifies every blob."""
        add_to_store(store, IMAGE, "app:1")
        text = sink.format(tmp_path)
        run("app:1", text)
        skopeo("copy", text, f"dir:{tmp_path}/check")
        config = json.loads(skopeo("inspect", "--config", f"dir:{tmp_path}/check"))
        assert config["rootfs"]["diff_ids"] == [str(layer.diff_id) for layer in _facts(store, "app:1").layers]

    @pytest.mark.parametrize(
        "source", ["oci:{}/x:1", "oci-archive:{}/x.tar:1", "dir:{}/x", "docker-archive:{}/x.tar:app:1"], ids=lambda s: s.partition(":")[0]
    )  # fmt: skip
    def test_writes_what_we_read(self, store: Store, run: Copier, tmp_path: Path, source: str) -> None:
        add_to_store(store, IMAGE, "app:1")
        run("app:1", f"oci:{tmp_path}/from:1")
        text = source.format(tmp_path)
        skopeo("copy", f"oci:{tmp_path}/from:1", text)
        run(text, "store:back:1")
        assert _facts(store, "back:1").config == _facts(store, "app:1").config

    def test_reads_the_store_itself(self, store: Store, tmp_path: Path) -> None:
        add_to_store(store, IMAGE, "app:1")
        skopeo("copy", f"oci:{store.root}:app:1", f"dir:{tmp_path}/check")
        assert (tmp_path / "check" / "manifest.json").read_bytes() == IMAGE.manifest.raw

    def test_index_goes_through_both(
        self, open_registry: Registry, store: Store, registries: Registries, run: Copier, tmp_path: Path
    ) -> None:
        images = (tiny_image({"amd": b"64"}), tiny_image({"arm": b"64"}, platform=ARM64))
        for number, image in enumerate(images):
            add_to_store(store, image, f"part:{number}")
        index = tiny_index(images)
        with store.session() as session:
            store.add_image(session.put(index.raw, index.media_type), [Reference.parse("docker.io/library/all:1")])
        name = open_registry.name("index")
        run("all:1", f"docker://{name}:1")
        skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{name}:1", f"oci:{tmp_path}/theirs:1")
        assert run(f"oci:{tmp_path}/theirs:1", f"docker://{name}:2") == str(index.digest)
        digest = run(f"docker://{name}:2", "store:arm:1", replace(OPTIONS, platform=ARM64))
        assert digest == str(images[1].manifest.digest)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        pytest.param('prefix = "r.invalid/team"\nlocation = "r.invalid/other"', "r.invalid/team/app:1", id="prefix"),
        pytest.param('prefix = "*.invalid"', "deep.r.invalid/app:1", id="wildcard"),
        pytest.param('prefix = "docker.io/library"\nlocation = "r.invalid"', "docker.io/library/app:1", id="hub"),
        pytest.param('location = "r.invalid"\nmirror-by-digest-only = true', f"r.invalid/app@{IMAGE.manifest.digest}", id="digest-only"),
        pytest.param('location = "r.invalid"\nmirror-by-digest-only = true', "r.invalid/app:1", id="no-mirror-by-tag"),
        pytest.param('location = "r.invalid"\nblocked = true', "r.invalid/app:1", id="blocked-with-a-mirror"),
        pytest.param('location = "r.invalid"\nblocked = true\nmirror-by-digest-only = true', "r.invalid/app:1", id="blocked"),
    ],
)  # fmt: skip
def test_skopeo_reads_a_registries_conf_as_we_do(
    open_registry: Registry, store: Store, tmp_path: Path, rule: str, name: str
) -> None:
    """Both find the image at the mirror, or neither does."""
    add_to_store(store, IMAGE, "app:1")
    # No name of ".invalid" leads anywhere, so whatever answers is the mirror.
    text = f'[[registry]]\n{rule}\n[[registry.mirror]]\nlocation = "{open_registry.name("mirror")}"\ninsecure = true\n'
    (tmp_path / "r.conf").write_text(text)
    with anonymous_registries() as plain:
        for path in ("mirror/app:1", "mirror/r.invalid/app:1", "mirror/team/app:1"):
            push("app:1", Reference.parse(open_registry.name(path)), store, plain, OPTIONS)
    theirs = subprocess.run(
        [need("skopeo"), "--registries-conf", tmp_path / "r.conf", "inspect", "--raw", f"docker://{name}"],
        capture_output=True, check=False,
    )  # fmt: skip
    conf = load_conf(ConfFiles(tmp_path / "r.conf"))
    with anonymous_registries(RegistryOptions(conf=conf, retry=Retry(attempts=1))) as ours:
        try:
            found = RegistrySource(Reference.parse(name), ours).root().digest
        except (PolicyRejected, RegistryError):
            assert theirs.returncode != 0
        else:
            assert (theirs.returncode, Digest.of(theirs.stdout)) == (0, found)


def test_logins_are_read_by_both(locked_registry: Registry, store: Store, tmp_path: Path) -> None:
    """skopeo and podman log in where we find it, and the other way round."""
    add_to_store(store, IMAGE, "app:1")
    image = locked_registry.name("logins:1")
    with anonymous_registries(
        RegistryOptions(insecure=True, credential=Credential(BOB.username, BOB.password))
    ) as opened:
        push("app:1", Reference.parse(image), store, opened, OPTIONS)
    host, theirs, ours = locked_registry.host, tmp_path / "theirs.json", tmp_path / "ours.json"
    for program in (need("skopeo"), need("podman")):
        command([
            program, "login", "--tls-verify=false", "--authfile", theirs, "-u", BOB.username, "--password-stdin", host,
        ], stdin=BOB.password)  # fmt: skip
        assert Credentials(CredentialFiles((theirs,), theirs), {}).find(host) == Credential(BOB.username, BOB.password)
        theirs.unlink()
        Credentials(CredentialFiles((ours,), ours), {}).login(host, Credential(BOB.username, BOB.password))
        assert command([program, "login", "--get-login", "--authfile", ours, host]).strip() == BOB.username
        skopeo("inspect", "--raw", "--tls-verify=false", "--authfile", ours, f"docker://{image}")
        command([program, "logout", "--authfile", ours, host])
        assert Credentials(CredentialFiles((ours,), ours), {}).find(host) is None


class TestDockerRegistry:
    def test_round_trip(self, open_registry: Registry, store: Store, registries: Registries, tmp_path: Path) -> None:
        add_to_store(store, IMAGE, "app:1")
        reference = Reference.parse(open_registry.name("round-trip:1"))
        push("app:1", reference, store, registries, OPTIONS)
        with Store.open(tmp_path / "other") as other:
            pulled = pull(reference, other, registries, OPTIONS, unpack=False)
            assert pulled.target.digest == IMAGE.manifest.digest
            record = other.metadata.name(str(reference))
            assert record is not None
            assert record.source == str(IMAGE.manifest.digest)

    def test_mount_and_tags(self, open_registry: Registry, store: Store, registries: Registries, run: Copier) -> None:
        add_to_store(store, IMAGE, "app:1")
        first, second = open_registry.name("mount-from"), open_registry.name("mount-to")
        run("app:1", f"docker://{first}:1")
        for tag in ("a", "b"):
            run(f"docker://{first}:1", f"docker://{second}:{tag}")
        assert sorted(registries.repository(Reference.parse(second)).tags()) == ["a", "b"]

    def test_stream_of_unknown_size(self, open_registry: Registry, store: Store, run: Copier, tmp_path: Path) -> None:
        """A docker archive's layers are compressed on their way."""
        add_to_store(store, IMAGE, "app:1")
        save(["app:1"], str(tmp_path / "a.tar"), store, OPTIONS)
        run(f"docker-archive:{tmp_path}/a.tar", f"docker://{open_registry.name('streamed')}:1")
        skopeo(
            "copy", "--src-tls-verify=false", f"docker://{open_registry.name('streamed')}:1", f"dir:{tmp_path}/check"
        )

    def test_password_and_tls(self, locked_registry: Registry, store: Store, tmp_path: Path) -> None:
        assert locked_registry.certificate
        trust = tmp_path / "certs.d" / locked_registry.host
        trust.mkdir(parents=True)
        (trust / "ca.crt").write_bytes(locked_registry.certificate.read_bytes())
        options = RegistryOptions(
            credential=Credential(BOB.username, BOB.password), certificates=(tmp_path / "certs.d",)
        )
        add_to_store(store, IMAGE, "app:1")
        reference = Reference.parse(locked_registry.name("app:1"))
        with anonymous_registries(options) as registries:
            registries.check_login(reference.domain, Credential(BOB.username, BOB.password))
            push("app:1", reference, store, registries, OPTIONS)
            assert pull(reference, store, registries, OPTIONS, unpack=False).target.digest == IMAGE.manifest.digest

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            pytest.param(RegistryOptions(), "certificate is not trusted", id="unknown-authority"),
            pytest.param(RegistryOptions(insecure=True), "access denied: log in with 'tierce login", id="no-password"),
            pytest.param(
                RegistryOptions(insecure=True, credential=Credential("bob", "wrong")),
                "as bob: wrong user name or password",
                id="wrong-password",
            ),
        ],
    )
    def test_refusals(self, locked_registry: Registry, store: Store, options: RegistryOptions, message: str) -> None:
        add_to_store(store, IMAGE, "app:1")
        reference = Reference.parse(locked_registry.name("app:1"))
        with anonymous_registries(options) as registries:
            with pytest.raises(RegistryError, match=message) as caught:
                push("app:1", reference, store, registries, OPTIONS)
            with pytest.raises(RegistryError, match=message):
                pull(reference, store, registries, OPTIONS)
            if options.credential:
                with pytest.raises(RegistryError, match=message):
                    registries.check_login(reference.domain, options.credential)
        assert "wrong'" not in repr(caught.value)


class _ConnectProxy(StreamRequestHandler):
    """Takes one CONNECT to anywhere, and connects to the registry instead."""

    def handle(self) -> None:
        server = cast("_ProxyServer", self.server)
        lines = [self.rfile.readline()]
        while (line := self.rfile.readline().strip()) != b"":
            lines.append(line)
        server.asked.append(b"\n".join(lines).decode())
        with socket.create_connection(server.target) as upstream:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(upstream, self.connection))
            back.start()
            _pump(self.connection, upstream)
            back.join()


class _ProxyServer(ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _ConnectProxy)
        self.target = target
        self.asked: list[str] = []


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_https_goes_through_a_proxy(locked_registry: Registry, store: Store, tmp_path: Path) -> None:
    host, _, port = locked_registry.host.partition(":")
    add_to_store(store, IMAGE, "app:1")
    credentials = Credentials(CredentialFiles((), tmp_path / "none"), {})
    options = RegistryOptions(insecure=True, credential=Credential(BOB.username, BOB.password))
    with _ProxyServer((host, int(port))) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        environ = {"HTTPS_PROXY": f"http://me:secret@127.0.0.1:{proxy.server_address[1]}"}
        try:
            with Registries(environ, credentials, options) as registries:
                reference = Reference.parse("registry.invalid/proxied:1")
                push("app:1", reference, store, registries, OPTIONS)
                assert pull(reference, store, registries, OPTIONS, unpack=False).target.digest == IMAGE.manifest.digest
        finally:
            proxy.shutdown()
            thread.join()
    first = proxy.asked[0].splitlines()
    assert first[0].startswith("CONNECT registry.invalid:443 HTTP/1.")
    assert "Proxy-Authorization: Basic bWU6c2VjcmV0" in first


class TestEngines:
    @pytest.mark.root
    def test_docker_loads_and_saves(self, docker: Docker, busybox_archive: Path, store: Store, tmp_path: Path) -> None:
        [base] = load(str(busybox_archive), store, OPTIONS, unpack=False)
        store.add_image(base.pulled.target, [Reference.parse("docker.io/library/ours:1")])
        save(["ours:1"], str(tmp_path / "ours.tar"), store, OPTIONS)
        docker("load", "--input", tmp_path / "ours.tar")
        assert docker.run("ours:1", "echo", "hello") == "hello\n"
        docker("save", "--output", tmp_path / "theirs.tar", "ours:1")
        [back] = load(str(tmp_path / "theirs.tar"), store, OPTIONS, unpack=False)
        assert store.facts(back.pulled.target).config == store.facts(base.pulled.target).config

    @pytest.mark.root
    def test_podman_loads_and_saves(
        self, podman_and_buildah: Podman, busybox_archive: Path, store: Store, tmp_path: Path
    ) -> None:
        [base] = load(str(busybox_archive), store, OPTIONS, unpack=False)
        store.add_image(base.pulled.target, [Reference.parse("docker.io/library/ours:1")])
        save(["ours:1"], str(tmp_path / "ours.tar"), store, OPTIONS)
        podman_and_buildah("load", "--input", tmp_path / "ours.tar")
        for form in ("docker-archive", "oci-archive"):
            path = tmp_path / f"{form}.tar"
            podman_and_buildah("save", "--format", form, "--output", path, "docker.io/library/ours:1")
            [back] = load(str(path), store, OPTIONS, unpack=False)
            assert [str(layer.diff_id) for layer in store.facts(back.pulled.target).layers] == [
                str(layer.diff_id) for layer in store.facts(base.pulled.target).layers
            ]


@pytest.mark.root
def test_pull_unpacks_what_it_pulled(
    open_registry: Registry, store: Store, registries: Registries, tmp_path: Path
) -> None:
    add_to_store(store, IMAGE, "app:1")
    reference = Reference.parse(open_registry.name("unpacked:1"))
    push("app:1", reference, store, registries, OPTIONS)
    with Store.open(tmp_path / "other") as other:
        pull(reference, other, registries, OPTIONS, unpack=True)
        stack = other.layers.stack(_facts(other, str(reference)).layers[-1].chain_id)
        assert [sorted(path.name for path in other.layers.diff(layer).iterdir()) for layer in stack] == [["c"], ["a"]]
        assert not pull(reference, other, registries, OPTIONS, unpack=True).changed


def test_killed_pull_leaves_a_whole_store(
    open_registry: Registry, store: Store, registries: Registries, tmp_path: Path
) -> None:
    """Killed after its blobs and before its name; the next command sweeps and pulls."""
    add_to_store(store, IMAGE, "app:1")
    reference = Reference.parse(open_registry.name("killed:1"))
    push("app:1", reference, store, registries, OPTIONS)
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom image.reference import Reference\nfrom store.store import Store\n"
        "from tests.support.transfers import OPTIONS, anonymous_registries\nfrom transfer.pull import pull\n"
        "Store.add_image = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with Store.open(Path(sys.argv[1])) as store, anonymous_registries() as registries:\n"
        "    pull(Reference.parse(sys.argv[2]), store, registries, OPTIONS, unpack=False)\n"
    )

    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "other"), str(reference)], check=False)
    assert done.returncode == -9
    with Store.open(tmp_path / "other") as other:
        assert other.metadata.images() == []
        assert other.collect().blobs == 4
        assert pull(reference, other, registries, OPTIONS, unpack=False).changed


def test_store_sink_holds_nothing_after_a_failure(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), StoreSink(store) as sink:
        sink.put_new_blob("x", iter([b"data"]))
        raise ZeroDivisionError
    assert store.collect().blobs == 1
    assert store.metadata.lease_owners() == set()


def _facts(store: Store, name: str) -> ImageFacts:
    record = store.metadata.name(str(Reference.parse(name)))
    assert record is not None
    return store.facts(record.target)
