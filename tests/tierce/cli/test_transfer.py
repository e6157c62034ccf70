"""``pull``, ``push``, ``copy``, ``login`` against a real registry."""

from __future__ import annotations

import base64
import http.server
import json
import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fixtures.registries import ECR, emulate, make_certificate
from image.descriptor import Descriptor
from image.digest import Digest
from image.manifest import Manifest
from tests.support.cli import Tierce
from tests.support.fake_registry import Handler, fake_registry
from tests.support.registry import Login, Registry, registry
from tests.tierce.conftest import Stock

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def open_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    login = Login("alice", "secret")
    with registry(tmp_path_factory.mktemp("locked"), login=login) as running:
        yield running


def test_push_then_pull_gives_the_same_digest(
    stock: Stock, tierce: Tierce, open_place: Registry, tmp_path: Path
) -> None:
    target = stock.add("app")
    name = open_place.name("same/app:1")
    tierce("tag", "app", name)
    pushed = tierce("push", name)
    assert pushed.stdout.splitlines() == [
        f"The push refers to repository [{open_place.name('same/app')}]",
        f"1: digest: {target.digest} size: {target.size}",
    ]
    assert ": Pushed " in pushed.stderr
    other = Tierce(tmp_path / "other")
    pulled = other("pull", name)
    assert pulled.stdout == f"{name}\n"
    assert f"Digest: {target.digest}\nStatus: Downloaded newer image for {name}\n" in pulled.stderr
    assert "Image is up to date" in other("pull", name).stderr
    assert other("images", "--digests", "--format", "{{.Digest}}").stdout == f"{target.digest}\n"


def test_quiet_says_the_name_alone(stock: Stock, tierce: Tierce, open_place: Registry) -> None:
    name = open_place.name("quiet/app:latest")
    stock.add(name)
    for verb in ("push", "pull"):
        done = tierce(verb, "-q", name.removesuffix(":latest"))
        assert (done.stdout, done.stderr) == (f"{name}\n", "")


def test_an_absent_image(tierce: Tierce, open_place: Registry) -> None:
    done = tierce.attempt("pull", open_place.name("absent/app:1"))
    assert done.code == 1
    assert "absent/app" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    done = tierce.attempt("push", open_place.name("absent/app:1"))
    assert done.code == 1


def test_an_unreachable_registry(tierce: Tierce) -> None:
    done = tierce.attempt("pull", "-q", "127.0.0.1:1/app")
    assert done.code == 1
    assert done.stderr.count("\n") == 1
    assert "connection refused" in done.stderr


def test_login_push_logout(stock: Stock, tierce: Tierce, locked: Registry) -> None:
    name = locked.name("private/app:1")
    stock.add(name)
    assert tierce.attempt("push", "-q", name).code == 1
    wrong = tierce.attempt("login", "-u", "alice", "--password-stdin", locked.host, stdin="wrong\n")
    assert wrong.code == 1
    assert wrong.stderr.count("\n") == 1
    done = tierce("login", "-u", "alice", "--password-stdin", locked.host, stdin="secret\n")
    assert done.stdout == "Login Succeeded\n"
    tierce("push", "-q", name)
    assert tierce("logout", locked.host).stdout == f"Removing login credentials for {locked.host}\n"
    assert tierce("logout", locked.host).stdout == f"Not logged in to {locked.host}\n"
    assert tierce.attempt("pull", "-q", name).code == 1
    tierce("pull", "-q", "--creds", "alice:secret", name)


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("--password-stdin", "x.example.com"), "must provide --username with --password-stdin"),
        (("-p", "x", "--password-stdin", "-u", "a"), "mutually exclusive"),
        (("x.example.com",), "cannot perform an interactive login from a non-terminal"),
    ],
    ids=["no user", "two passwords", "no terminal"],
)
def test_login_refused(argv: tuple[str, ...], error: str, tierce: Tierce) -> None:
    done = tierce.attempt("login", *argv, stdin="")
    assert done.code == 1
    assert error in done.stderr


def test_get_login_and_logout_everywhere(tierce: Tierce, locked: Registry) -> None:
    nobody = tierce.attempt("login", "--get-login", locked.host)
    assert (nobody.code, nobody.stderr) == (1, f"tierce: not logged in to {locked.host}\n")
    tierce("login", "-u", "alice", "--password-stdin", locked.host, stdin="secret\n")
    assert tierce("login", "--get-login", locked.host).stdout == "alice\n"
    authfile = Path(tierce.env()["DOCKER_CONFIG"], "config.json")
    assert tierce("logout", "--all", "--authfile", authfile).stdout == "Removed login credentials for 1 registry\n"
    assert tierce.attempt("login", "--get-login", locked.host).code == 1
    empty = tierce.attempt("login", "-u", "alice", "--password-stdin", locked.host, stdin="\n")
    assert empty.stderr == "tierce: login: the password on standard input is empty\n"


def test_copy_anywhere_and_back(stock: Stock, tierce: Tierce, open_place: Registry, tmp_path: Path) -> None:
    target = stock.add("app")
    places = [
        f"oci:{tmp_path}/layout:app",
        f"docker://{open_place.name('copied/app:1')}",
        f"oci-archive:{tmp_path}/app.tar:app",
        f"dir:{tmp_path}/dir",
        "store:again",
    ]
    for source, destination in zip(["app", *places], places, strict=False):
        done = tierce("copy", "--dest-tls-verify=false", "--src-tls-verify=false", source, destination)
        assert done.stdout == f"{target.digest}\n", destination
    assert tierce("images", "-q", "again").stdout == tierce("images", "-q", "app").stdout


def test_copy_of_all_platforms_and_of_one(stock: Stock, tierce: Tierce, tmp_path: Path) -> None:
    amd, arm = stock.add(content="amd"), stock.add(content="arm", platform="linux/arm64")
    index = stock.add_index("both", [(amd, "linux/amd64"), (arm, "linux/arm64")])
    assert tierce("copy", "-q", "both", f"oci:{tmp_path}/all").stdout == ""
    digest_file = tmp_path / "digest"
    tierce("copy", "--digestfile", digest_file, "both", f"oci:{tmp_path}/all")
    assert digest_file.read_text() == str(index.digest)
    assert tierce("copy", "--platform", "arm64", "both", f"oci:{tmp_path}/arm").stdout == f"{arm.digest}\n"
    done = tierce.attempt("copy", "--all", "--platform", "arm64", "both", f"oci:{tmp_path}/x")
    assert done.code == 1
    assert "--all and --platform are mutually exclusive" in done.stderr


@pytest.mark.parametrize(
    ("source", "destination", "error"),
    [
        ("absent", "oci:/tmp/x", "absent"),
        ("containers-storage:x", "y", "transport 'containers-storage'"),
        ("oci:/absent", "y", "/absent"),
    ],
)
def test_copy_refused(source: str, destination: str, error: str, tierce: Tierce) -> None:
    done = tierce.attempt("copy", source, destination)
    assert done.code == 1
    assert error in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.root
def test_run_pulls_what_is_not_there(tierce_with_busybox: Tierce, open_place: Registry, tmp_path: Path) -> None:
    name = open_place.name("run/busybox:latest")
    tierce_with_busybox("tag", "busybox", name)
    tierce_with_busybox("push", "-q", name)
    other = Tierce(tmp_path / "other")
    done = other("run", "--rm", "--network", "none", name.removesuffix(":latest"), "echo", "ok")
    assert done.stdout == "ok\n"
    assert done.stderr.startswith(f"Unable to find image '{name}' locally\n")
    assert other("run", "--rm", "--network", "none", name, "echo", "ok").stderr == ""
    always = other("run", "-q", "--rm", "--pull=always", "--network", "none", name, "echo", "ok")
    assert (always.stdout, always.stderr) == ("ok\n", "")
    (tmp_path / "r.conf").write_text(f'[aliases]\n"box" = "{open_place.name("run/busybox")}"\n')
    aliased = ("--registries-conf", tmp_path / "r.conf", "run", "--rm", "--network", "none", "box", "echo", "ok")
    assert (other(*aliased).stdout, other(*aliased).stderr) == ("ok\n", ""), "the store has it by its full name"
    third = Tierce(tmp_path / "third")
    assert third(*aliased).stderr.startswith("Unable to find image 'box:latest' locally\n")
    assert third(*aliased).stderr == ""


def test_a_pull_in_a_terminal_draws_and_leaves_lines(
    stock: Stock, tierce: Tierce, open_place: Registry, tmp_path: Path
) -> None:
    name = open_place.name("drawn/app:1")
    stock.add(name, content="x" * 300_000)
    tierce("push", "-q", name)
    other = Tierce(tmp_path / "other")
    leader, follower = pty.openpty()
    environment = other.env() | {"TERM": "xterm"}
    environment.pop("CI", None)
    process = subprocess.Popen(other.argv("pull", name), stdout=subprocess.DEVNULL, stderr=follower, env=environment)
    os.close(follower)
    seen = b""
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:
            break
        seen += data
    os.close(leader)
    assert process.wait() == 0
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h") == 1
    assert b": Pull complete" in seen


class _Trickle(http.server.BaseHTTPRequestHandler):
    """A registry with one image, whose layer never ends."""

    protocol_version = "HTTP/1.1"
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [f"sha256:{'0' * 64}"]}}
    ).encode()
    layer = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", Digest(f"sha256:{'1' * 64}"), 1 << 30)
    manifest = Manifest.build(Descriptor.of(config, "application/vnd.oci.image.config.v1+json"), [layer])

    def do_GET(self) -> None:
        if self.layer.digest.value in self.path:
            self._begin("application/octet-stream", self.layer.size)
            with suppress(OSError):
                while True:
                    self.wfile.write(bytes(10_000))
                    time.sleep(0.02)
        elif "/manifests/" in self.path:
            self._begin(self.manifest.media_type, len(self.manifest.raw))
            self.wfile.write(self.manifest.raw)
        else:
            body = self.config if "/blobs/" in self.path else b"{}"
            self._begin("application/octet-stream", len(body))
            self.wfile.write(body)

    def _begin(self, kind: str, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def trickle() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Trickle)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}/endless/app:1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_ctrl_c_during_a_pull_stops_it_and_gives_the_terminal_back(tierce: Tierce, trickle: str) -> None:
    leader, follower = pty.openpty()
    environment = tierce.env() | {"TERM": "xterm"}
    environment.pop("CI", None)
    process = subprocess.Popen(
        tierce.argv("pull", trickle), stdout=subprocess.DEVNULL, stderr=follower, env=environment
    )
    os.close(follower)
    seen = b""
    while b"MB/1.07GB" not in seen:
        seen += os.read(leader, 65536)
    process.send_signal(signal.SIGINT)
    with suppress(OSError):
        while data := os.read(leader, 65536):
            seen += data
    os.close(leader)
    assert process.wait(timeout=20) == 130
    assert seen.endswith(b"\x1b[?25h")
    assert list((tierce.root / "ingest").iterdir()) == []
    assert list((tierce.root / "leases").iterdir()) == []
    assert tierce("system", "check", "-q").stdout == ""


def test_a_mirror_stands_in_and_a_block_refuses(
    stock: Stock, tierce: Tierce, open_place: Registry, tmp_path: Path
) -> None:
    target = stock.add("app")
    tierce("copy", "app", f"docker://{open_place.name('mirrored/team/app:1')}")
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f'[aliases]\n"our/app" = "registry.invalid/team/app"\n[[registry]]\nlocation = "registry.invalid"\n'
        f'[[registry.mirror]]\nlocation = "{open_place.name("mirrored")}"\n'
        '[[registry]]\nlocation = "blocked.invalid"\nblocked = true\n'
    )
    other = Tierce(tmp_path / "other")
    pulled = other("--registries-conf", conf, "pull", "our/app:1")
    assert pulled.stdout == "registry.invalid/team/app:1\n"
    assert other("images", "--digests", "--format", "{{.Digest}}").stdout == f"{target.digest}\n"
    copied = other("--registries-conf", conf, "copy", "docker://registry.invalid/team/app:1", f"dir:{tmp_path}/copy")
    assert copied.stdout == f"{target.digest}\n"
    refused = other.attempt("--registries-conf", conf, "pull", "-q", "blocked.invalid/app:1")
    assert (refused.code, refused.stderr) == (
        1, f"tierce: pull blocked.invalid/app:1: blocked.invalid is blocked by {conf}\n",
    )  # fmt: skip
    conf.write_text("[[registry]]\nlocation = 5\n")
    broken = other.attempt("--registries-conf", conf, "pull", "app")
    assert broken.stderr.endswith(f"tierce: read {conf}:2: registry[0].location: want a text\n")


def test_cert_dir_is_trusted(stock: Stock, tierce: Tierce, tmp_path: Path) -> None:
    stock.add("app")
    with registry(tmp_path / "tls", tls=True) as running:
        assert running.certificate
        (tmp_path / "certs").mkdir()
        (tmp_path / "certs" / "ca.crt").write_bytes(running.certificate.read_bytes())
        name = running.name("app:1")
        assert "certificate is not trusted" in tierce.attempt("copy", "app", f"docker://{name}").stderr
        tierce("copy", "--dest-cert-dir", tmp_path / "certs", "app", f"docker://{name}")
        tierce("copy", "--src-cert-dir", tmp_path / "certs", f"docker://{name}", f"dir:{tmp_path}/copy")
        other = Tierce(tmp_path / "other")
        assert other("pull", "--cert-dir", tmp_path / "certs", name).stdout == f"{name}\n"


def test_create_repository_at_ecr(stock: Stock, tierce: Tierce, tmp_path: Path) -> None:
    """A real host name, by way of a proxy to the emulator; AWS's API is beside it."""
    target = stock.add("app")
    home = tmp_path / "home"
    with emulate(ECR, make_certificate(tmp_path), home / ".config/containers/certs.d") as ecr, fake_registry() as aws:
        ecr.tokens.accounts["AWS"] = "pw"
        token = base64.b64encode(b"AWS:pw").decode()

        def serve(handler: Handler) -> None:
            if handler.headers["X-Amz-Target"].endswith(".CreateRepository"):
                ecr.storage.create(json.loads(handler.content)["repositoryName"])
            handler.reply(200, json.dumps({"authorizationData": [{"authorizationToken": token}]}).encode())

        aws.on("POST /", serve, times=99)
        keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_ENDPOINT_URL": aws.url}
        user = Tierce(tierce.root, {"HOME": str(home), **ecr.environ, **keys})
        name = f"{ECR.host}/team/app:1"
        refused = user.attempt("copy", "app", f"docker://{name}")
        assert refused.code == 1
        assert "s3cret" not in refused.stderr
        assert user("copy", "--create-repository", "app", f"docker://{name}").stdout == f"{target.digest}\n"
        user("tag", "app", f"{ECR.host}/other/app:1")
        user("push", "--create-repository", f"{ECR.host}/other/app:1")
    assert sorted(ecr.storage.repositories) == ["other/app", "team/app"]
