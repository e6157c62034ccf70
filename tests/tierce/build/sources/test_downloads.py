"""ADD of URLs, from a real server that changes, lies, stalls and breaks off."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from builder.progress import StepCached, StepDone, StepStarted
from image.errors import RegistryError
from store.store import Store
from tests.support.memory import measure
from tests.support.web import Page, Web, web
from tests.tierce.build.sources.conftest import Bench, archive
from tierce.build.downloads import StoredDownloads
from transfer.registry.transport import Timeouts

pytestmark = pytest.mark.root


MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    ("flags", "path", "dest", "expected"),
    [
        ("", "/f", "/d/", {"d/": "755 0:0", "d/f": "600 0:0 data"}),
        ("", "/f", "/renamed", {"renamed": "600 0:0 data"}),
        ("", "/dir/f?sig=1", "/", {"f": "600 0:0 data"}),
        ("", "/", "/d/", {"d/": "755 0:0", "d/__unnamed__": "600 0:0 data"}),
        ("", "/a%20b", "/d/", {"d/": "755 0:0", "d/a b": "600 0:0 data"}),
        ("", "/x/%2e%2e", "/d/e/", {"d/": "755 0:0", "d/e/": "755 0:0", "d/e/__unnamed__": "600 0:0 data"}),
        ("--chmod=755", "/f", "/f", {"f": "755 0:0 data"}),
        ("--chmod=g+r", "/f", "/f", {"f": "640 0:0 data"}),
        ("--chown=5:6", "/f", "/d/", {"d/": "755 5:6", "d/f": "600 5:6 data"}),
        ("--link", "/f", "/d/", {"d/": "755 0:0", "d/f": "600 0:0 data"}),
        ("--checksum=sha256:" + hashlib.sha256(b"data").hexdigest(), "/f", "/", {"f": "600 0:0 data"}),
    ],
)
def test_what_add_of_a_url_makes(
    bench: Bench, server: Web, flags: str, path: str, dest: str, expected: dict[str, str]
) -> None:
    server.pages[path] = Page(b"data")
    built = bench.build(f"FROM scratch\nADD {flags} {server.url(path)} {dest}")
    assert bench.listing(built) == expected


def test_a_download_has_the_servers_time_or_none(bench: Bench, server: Web) -> None:
    server.pages |= {"/old": Page(b"1", modified=MODIFIED), "/none": Page(b"2"), "/odd": Page(b"3", modified="soon")}
    built = bench.build("FROM scratch\nADD " + " ".join(map(server.url, server.pages)) + " /")
    assert bench.times(built, "old", "none", "odd") == [1_700_000_000, 0, 0]


def test_a_download_is_unpacked_only_on_request(bench: Bench, server: Web) -> None:
    server.pages["/a.tgz"] = Page(archive({"in/f": "x"}))
    url = server.url("/a.tgz")
    assert list(bench.listing(bench.build(f"FROM scratch\nADD {url} /d/"))) == ["d/", "d/a.tgz"]
    assert bench.listing(bench.build(f"FROM scratch\nADD --unpack {url} /d/")) == {
        "d/": "755 0:0", "d/in/": "755 0:0", "d/in/f": "640 7:0 x",
    }  # fmt: skip


def test_local_and_remote_sources_are_added_in_order(bench: Bench, server: Web) -> None:
    server.pages |= {"/one": Page(b"remote"), "/two": Page(b"remote")}
    bench.write(one="local", two="local")
    built = bench.build(f"FROM scratch\nADD one {server.url('/one')} {server.url('/two')} two <<A /d/\na\nA")
    assert bench.listing(built) == {
        "d/": "755 0:0", "d/A": "644 0:0 a\n", "d/one": "600 0:0 remote", "d/two": "644 0:0 local",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("page", "again"),
    [
        (Page(b"data", etag='"1"'), ["HEAD /f 304"]),
        (Page(b"data", etag='"1"', modified=MODIFIED), ["HEAD /f 304"]),
        (Page(b"data", modified=MODIFIED), ["HEAD /f 304"]),
        (Page(b"data", etag='"1"', heads=False), ["HEAD /f 405", "GET /f 304"]),
        (Page(b"data"), ["GET /f 200"]),
    ],
    ids=["etag", "etag and time", "time", "no HEAD", "nothing to go by"],
)
def test_an_unchanged_url_downloads_nothing(bench: Bench, server: Web, page: Page, again: list[str]) -> None:
    server.pages["/f"] = page
    text = f"FROM scratch\nADD {server.url('/f')} /"
    first = bench.build(text)
    assert server.asked() == ["GET /f 200"]
    with Store.open(bench.root) as store:
        store.collect()
    assert bench.build(text) == first
    assert server.asked() == again
    assert bench.names(StepDone) in ([], [f"download {server.url('/f')}"])
    assert f"ADD {server.url('/f')} /" in bench.names(StepCached)


def test_a_changed_url_is_downloaded_and_what_follows_is_built(bench: Bench, server: Web) -> None:
    server.pages["/f"] = Page(b"1", etag='"1"')
    text = f"FROM scratch\nADD {server.url('/f')} /\nWORKDIR /w"
    bench.build(text)
    server.pages["/f"] = Page(b"2", etag='"2"')
    assert bench.listing(bench.build(text))["f"] == "600 0:0 2"
    assert server.asked() == ["GET /f 200", "HEAD /f 200", "GET /f 200"]
    server.pages["/f"] = Page(b"2", etag='"3"')
    bench.build(text)
    assert bench.names(StepCached)[-2:] == [f"ADD {server.url('/f')} /", "WORKDIR /w"]


def test_a_checksum_that_is_known_asks_nobody(bench: Bench, server: Web) -> None:
    server.pages["/f"] = Page(b"data")
    text = f"FROM scratch\nADD --checksum=sha256:{hashlib.sha256(b'data').hexdigest()} {server.url('/f')} /"
    first = bench.build(text)
    server.pages.clear()
    assert bench.build(text) == first
    assert server.asked() == ["GET /f 200"]


def test_a_stage_that_downloads_is_known_by_what_it_got(bench: Bench, server: Web) -> None:
    """Two stages on: the copy's key before its source is built covers the download."""
    server.pages["/f"] = Page(b"1", etag='"1"')
    text = f"FROM scratch AS a\nADD {server.url('/f')} /\nFROM scratch\nCOPY --from=a /f /g"
    bench.build(text)
    bench.build(text)
    assert bench.names(StepDone) == []
    server.pages["/f"] = Page(b"2", etag='"2"')
    assert bench.listing(bench.build(text)) == {"g": "600 0:0 2"}


def test_downloads_overlap_with_other_steps(bench: Bench, server: Web) -> None:
    """The server sends its body only once the other stage's step was started."""
    started = threading.Event()
    server.pages["/f"] = Page(b"1", wait=lambda: started.wait(60))
    bench.write(x="x")

    def watch() -> None:
        while not any(isinstance(event, StepStarted) and "COPY x" in event.name for event in list(bench.events)):
            time.sleep(0.01)
        started.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    bench.build(
        f"FROM scratch AS a\nADD {server.url('/f')} /\nFROM scratch AS b\nCOPY x /\n"
        "FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /"
    )
    watcher.join()
    assert started.is_set()


@pytest.mark.parametrize("name", ["HTTP_AUTH_TOKEN_{host}", "HTTP_AUTH_HEADER_{host}", "HTTP_AUTH_TOKEN_127.0.0.1"])
def test_credentials_come_from_secrets_and_stay_with_their_host(bench: Bench, server: Web, name: str) -> None:
    """A canary that only the protected host may see, and no file of the store."""
    with web({"/f": Page(b"elsewhere")}) as other:
        server.pages |= {
            "/f": Page(b"data", token="canary-42", etag='"1"'),
            "/away": Page(status=302, location=f"http://localhost:{other.port}/f", token="canary-42"),
        }
        bench.secrets = {name.format(host=f"127.0.0.1:{server.port}"): lambda: b"canary-42\n"}
        text = f"FROM scratch\nADD {server.url('/f')} {server.url('/away')} /"
        bench.build(text)
        bench.build(text)
        assert not any("canary" in str(headers) for headers in other.seen)
    for path in bench.root.rglob("*"):
        assert not path.is_file() or b"canary-42" not in path.read_bytes(), path
    bench.secrets = {}
    assert "401 unauthorized: give a token" in str(bench.refused(f"FROM scratch\nADD {server.url('/f')} /"))


@pytest.mark.parametrize(
    ("line", "page", "problem"),
    [
        ("ADD URL /", Page(status=404), "download http://127.0.0.1:PORT/f: 404 not found"),
        ("ADD URL /", Page(status=418), "download http://127.0.0.1:PORT/f: 418"),
        ("ADD URL /", Page(b"data", token="t"), "401 unauthorized: give a token with --secret id=HTTP_AUTH_TOKEN_HOST"),
        ("ADD URL /", Page(b"data", promised=9), "it broke off after 4 of 9 bytes"),
        ("ADD URL /", Page(status=302, location="/f"), "too many redirects"),
        ("ADD URL /", Page(status=302, location="file:///etc/passwd"), "invalid Location"),
        (f"ADD --checksum=sha256:{'0' * 64} URL /", Page(b"data"), "expected sha256:0000"),
        ("ADD --checksum=sha256:0 URL /", Page(), "invalid checksum"),
        (f"ADD --checksum=sha512:{'0' * 128} URL /", Page(), "want sha256"),
        (f"ADD --checksum=sha256:{'0' * 64} URL URL /", Page(), "multiple sources"),
        (f"ADD --checksum=sha256:{'0' * 64} f /", Page(), "requires an HTTP"),
        ("ADD --keep-git-dir URL /", Page(), "requires a git source"),
        ("COPY URL /", Page(), "source can't be a URL for COPY"),
        ("ADD http://[bad/ /", Page(), "invalid URL"),
        ("ADD --unpack URL /f/", Page(archive({"../../../../tmp/escaped-7f": "x"})), "escaped-7f"),
        ("ADD --chown=nobody URL /", Page(), "unable to find user nobody"),
    ],
)
def test_what_add_of_a_url_refuses(bench: Bench, server: Web, line: str, page: Page, problem: str) -> None:
    bench.write(f="f")
    server.pages["/f"] = page
    error = bench.refused("FROM scratch\nWORKDIR /w\n" + line.replace("URL", server.url("/f")))
    assert problem.replace("PORT", str(server.port)) in str(error)
    assert error.span is not None
    assert error.span.start == 3
    assert not Path("/tmp/escaped-7f").exists()


def test_a_url_in_a_message_shows_no_secret(bench: Bench, server: Web) -> None:
    url = server.url("/f?signature=canary-1").replace("http://", "http://user:canary-2@")
    assert "canary" not in str(bench.refused(f"FROM scratch\nADD {url} /"))


def test_nobody_listens(bench: Bench, server: Web) -> None:
    error = bench.refused("FROM scratch\nADD http://127.0.0.1:1/f /")
    assert str(error).startswith("download http://127.0.0.1:1/f: reach server 127.0.0.1:1: connection refused")


def test_a_public_server_cannot_aim_a_download_at_this_machine(bench: Bench, server: Web) -> None:
    """A proxy on loopback stands for the internet."""
    server.pages |= {
        "http://public.example/f": Page(status=302, location=server.url("/inside")), "/inside": Page(b"secret"),
    }  # fmt: skip
    bench.environ["http_proxy"] = server.url("")
    error = bench.refused("FROM scratch\nADD http://public.example/f /")
    assert "refused a redirect to the private address 127.0.0.1" in str(error)
    assert "GET /inside 200" not in server.log


def test_a_failure_elsewhere_ends_a_slow_download(bench: Bench, server: Web) -> None:
    release = threading.Event()
    server.pages["/slow"] = Page(b"1", wait=lambda: release.wait(120))
    text = (
        f"FROM scratch AS a\nADD {server.url('/slow')} /\nFROM scratch AS b\nCOPY absent /\n"
        "FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /"
    )
    try:
        assert "/absent" in str(bench.refused(text))
    finally:
        release.set()


def test_a_killed_build_leaves_nothing_of_its_downloads(server: Web, tmp_path: Path) -> None:
    begun = threading.Event()
    release = threading.Event()

    def wait() -> None:
        begun.set()
        release.wait(120)

    server.pages["/slow"] = Page(b"1", wait=wait)
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nADD {server.url('/slow')} /")
    argv = [sys.executable, "-m", "tierce", "--root", str(tmp_path / "root"), "build", "-q", str(tmp_path)]
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            begun.clear()
            with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                assert begun.wait(60)
                process.send_signal(number)
                process.communicate(timeout=30)
                assert process.returncode != 0
            with Store.open(tmp_path / "root") as store:
                store.collect()
                assert os.listdir(store.root / "ingest") == []
                assert store.layers.directories() == set()
    finally:
        release.set()


def test_a_server_that_falls_silent_is_given_up(bench: Bench, server: Web) -> None:
    release = threading.Event()
    server.pages["/slow"] = Page(b"1", wait=lambda: release.wait(60))
    with Store.open(bench.root) as store, store.session() as session:
        downloads = StoredDownloads(session, {}, {}, timeouts=Timeouts(idle_s=0.2))
        try:
            with pytest.raises(RegistryError, match=r"download .*/slow: reach server .* did not answer in time"):
                downloads.fetch(server.url("/slow"), None)
        finally:
            release.set()
            downloads.close()
        assert os.listdir(store.root / "ingest") == []


def test_a_large_download_takes_no_memory(server: Web, tmp_path: Path) -> None:
    """400 MB through a process that may have 150 MB above its interpreter."""
    server.pages["/large"] = Page(bytes(400 << 20))
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nADD {server.url('/large')} /")
    argv = [sys.executable, "-m", "tierce", "--root", str(tmp_path / "root"), "build", "-q", str(tmp_path)]
    done = measure(argv, tmp_path)
    assert done.code == 0, done.stderr.decode()
    assert done.peak_kib < 170 << 10


@pytest.mark.parametrize("name", ["HTTP_AUTH_TOKEN_127.0.0.1", "HTTP_AUTH_HEADER_127.0.0.1"])
def test_a_secret_adds_no_headers(bench: Bench, server: Web, name: str) -> None:
    server.pages["/f"] = Page(b"data")
    bench.secrets = {name: lambda: b"a\r\nX-Other: b"}
    assert f"secret {name} is no header" in str(bench.refused(f"FROM scratch\nADD {server.url('/f')} /"))


def test_a_damaged_download_is_found_before_it_is_used(bench: Bench, server: Web) -> None:
    server.pages["/f"] = Page(b"data", etag='"1"')
    bench.build(f"FROM scratch\nADD {server.url('/f')} /")
    digest = hashlib.sha256(b"data").hexdigest()
    (bench.root / "blobs" / "sha256" / digest).write_bytes(b"evil")
    assert f"expected sha256:{digest}" in str(bench.refused(f"FROM scratch\nADD {server.url('/f')} /other"))
