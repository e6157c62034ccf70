"""Where ADD and COPY get files from: web servers, git repositories, named contexts; and linked layers."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from builder.context import Context
from builder.named import NamedFiles, NamedImage
from builder.outputs import BuiltImage
from builder.progress import StepCached, StepDone, StepStarted
from builder.solve import SolveOptions
from builder.stage_plan import PlanOptions
from image.errors import DockerfileError
from image.reference import Reference
from store.layers import mounted
from store.store import Store
from tests.support.git import Repository, git_daemon
from tests.support.web import Page, Web, web
from tests.tierce.test_building import OPTIONS, SOLVE, Workbench
from tierce.base_images import StoredImages
from tierce.building import Build, BuildRequest, Connections
from tierce.network import Network
from tierce.sandbox import RunnerSandbox
from transfer.archives import load
from transfer.copy import CopyOptions

pytestmark = pytest.mark.root

MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"


@dataclass
class Bench(Workbench):
    """A workbench with a way to the network, and named contexts."""

    environ: dict[str, str] = field(default_factory=lambda: {"PATH": os.environ["PATH"]})
    contexts: dict[str, Context] = field(default_factory=dict)

    def build(
        self, dockerfile: str, plan: PlanOptions = OPTIONS, solve: SolveOptions = SOLVE, root: Path | None = None
    ) -> BuiltImage:
        self.events.clear()
        request = BuildRequest(
            context=self.context, dockerfile=dockerfile.encode(), name="Dockerfile", path=None, plan=plan, solve=solve,
            tags=(Reference.parse("built:latest"),), contexts=self.contexts,
        )  # fmt: skip
        with (
            Store.open(root or self.root) as store,
            store.session() as session,
            RunnerSandbox(os.environ) as sandbox,
            Network(lambda: session, self.environ, self.secrets, self.agents) as network,
        ):
            images = StoredImages(store, session, os.environ)
            world = Connections(
                images, sandbox, self.events.append, time.time, self.secrets, downloads=network, repositories=network
            )
            return Build(session, request, world).run()

    def refused(self, dockerfile: str, plan: PlanOptions = OPTIONS) -> DockerfileError:
        """The error of a build that must fail; of what it did nothing is left."""
        with pytest.raises(DockerfileError) as caught:
            self.build(dockerfile, plan)
        assert caught.value.span is not None
        with Store.open(self.root) as store:
            store.collect()
            assert os.listdir(store.root / "ingest") == []
            assert os.listdir(store.root / "trash") == []
            known = {layer.directory for layer in store.metadata.layers()}
            assert store.layers.directories() == known
        return caught.value

    def times(self, built: BuiltImage, *paths: str) -> list[int]:
        with Store.open(self.root) as store:
            chain = store.facts(built.manifest).layers[-1].chain_id
            with mounted(store.layers.overlay(store.layers.directories_of(chain))) as fd:
                return [int(os.stat(path, dir_fd=fd).st_mtime) for path in paths]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "context").mkdir()
    Store.open(tmp_path / "root").close()
    return Bench(tmp_path / "root", tmp_path / "context")


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as running:
        yield running


def archive(files: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid = len(text), 0o640, 7
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


# URLs


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


# Git


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "git").mkdir()
    return Repository.create(tmp_path / "git")


@pytest.fixture
def origin(repository: Repository, tmp_path: Path) -> Iterator[str]:
    with git_daemon(repository.bare.parent, tmp_path / "daemon.log") as url:
        yield f"{url}/app.git"


@dataclass(frozen=True, slots=True)
class Spy:
    """A git in the way that writes down its arguments."""

    log: Path

    def subcommands(self) -> set[str]:
        """Those since the last look."""
        known = {"fetch", "checkout", "ls-remote", "submodule"}
        words = self.log.read_text().split()
        self.log.write_text("")
        return known.intersection(words)


@pytest.fixture
def spied(bench: Bench, tmp_path: Path) -> Spy:
    git, log = shutil.which("git"), tmp_path / "arguments"
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {git} "$@"\n')
    program.chmod(0o755)
    bench.environ["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    return Spy(log)


TREE = {"f": "1", "run": "#!", "sub/x": "2"}


def test_what_add_of_a_repository_makes(bench: Bench, repository: Repository, origin: str) -> None:
    commit = repository.commit(TREE, executable=("run",))
    (repository.tree / "link").symlink_to("/etc/passwd")
    tip = repository.commit({})
    repository.git("tag", "-a", "v1", "-m", "one", commit)
    repository.git("push", "-q", "origin", "v1", "HEAD:refs/heads/other/branch")
    all_files = {
        "f": "644 0:0 1",
        "link": "-> /etc/passwd",
        "run": "755 0:0 #!",
        "sub/": "755 0:0",
        "sub/x": "644 0:0 2",
    }
    tagged = {name: shown for name, shown in all_files.items() if name != "link"}
    for url, expected in {
        origin: all_files,
        f"{origin}#v1": tagged,
        f"{origin}?tag=v1": tagged,
        f"{origin}#refs/tags/v1": tagged,
        f"{origin}#{commit}": tagged,
        f"{origin}?branch=other/branch": all_files,
        f"{origin}?ref=main&checksum={tip[:8]}": all_files,
        f"{origin}?commit={commit}": tagged,
        f"{origin}#v1:sub": {"x": "644 0:0 2"},
        f"{origin}?subdir=sub": {"x": "644 0:0 2"},
    }.items():
        assert bench.listing(bench.build(f"FROM scratch\nADD {url} /")) == expected, url


def test_an_unchanged_branch_fetches_nothing(bench: Bench, repository: Repository, origin: str, spied: Spy) -> None:
    repository.commit(TREE)
    bench.build(f"FROM scratch\nADD {origin} /a")
    assert "fetch" in spied.subcommands()
    text = f"FROM scratch\nADD {origin} /b\nADD {origin}#main /c"
    bench.build(text)
    assert {"checkout", "ls-remote"} <= spied.subcommands()
    assert "fetch" not in spied.subcommands()
    bench.build(text)
    assert spied.subcommands() == {"ls-remote"}
    assert bench.names(StepDone) == []
    repository.commit({"f": "changed"})
    assert bench.listing(bench.build(text))["b/f"] == "644 0:0 changed"
    assert "fetch" in spied.subcommands()


def test_few_commits_of_a_repository_stay(bench: Bench, repository: Repository, origin: str) -> None:
    """Each has all of its files, though only what was new was fetched for it."""
    for number in range(6):
        repository.commit({"f": str(number), **TREE} if number == 0 else {"f": str(number)})
        listing = bench.listing(bench.build(f"FROM scratch\nADD {origin} /"))
        assert listing["f"] == f"644 0:0 {number if number else 1}"
        assert listing["sub/x"] == "644 0:0 2"
    assert len(list((bench.root / "git").glob("*/*"))) == 4


def test_a_dumb_server_is_enough(bench: Bench, repository: Repository, server: Web) -> None:
    repository.commit(TREE)
    for path in repository.bare.rglob("*"):
        if path.is_file():
            server.pages[f"/app.git/{path.relative_to(repository.bare)}"] = Page(path.read_bytes())
    server.pages["/app.git/info/refs?service=git-upload-pack"] = server.pages["/app.git/info/refs"]
    listing = bench.listing(bench.build(f"FROM scratch\nADD {server.url('/app.git')} /"))
    assert listing["sub/x"] == "644 0:0 2"


def test_the_repository_itself_stays_only_on_request(bench: Bench, repository: Repository, origin: str) -> None:
    commit = repository.commit(TREE)
    built = bench.build(f"FROM scratch\nADD --keep-git-dir {origin} /")
    listing = bench.listing(built)
    assert commit in listing[".git/HEAD"]
    assert not any("hooks" in name for name in listing)


def test_files_may_have_the_commits_time(bench: Bench, repository: Repository, origin: str) -> None:
    repository.commit(TREE)
    built = bench.build(f"FROM scratch\nADD {origin}?mtime=commit /d")
    assert bench.times(built, "d/f", "d/sub") == [1_700_000_000, 1_700_000_000]


def test_submodules_come_by_default(bench: Bench, repository: Repository, origin: str, tmp_path: Path) -> None:
    inner = Repository.create(repository.bare.parent, "inner.git")
    inner.commit({"in": "side"})
    repository.git("submodule", "add", "-q", str(inner.bare), "mod")
    repository.git("config", "-f", ".gitmodules", "submodule.mod.url", "../inner.git")
    repository.commit({"f": "1"})
    assert bench.listing(bench.build(f"FROM scratch\nADD {origin} /"))["mod/in"] == "644 0:0 side"
    assert "mod/in" not in bench.listing(bench.build(f"FROM scratch\nADD {origin}?submodules=false /"))


def test_a_submodule_cannot_read_this_machine(bench: Bench, repository: Repository, origin: str) -> None:
    inner = Repository.create(repository.bare.parent, "inner.git")
    inner.commit({"in": "side"})
    repository.git("submodule", "add", "-q", str(inner.bare), "mod")
    repository.commit({"f": "1"})
    assert "transport 'file' not allowed" in str(bench.refused(f"FROM scratch\nADD {origin} /"))


def test_no_configuration_or_hook_of_the_host_steers_git(
    bench: Bench, repository: Repository, origin: str, tmp_path: Path
) -> None:
    """A HOME whose configuration would send every fetch elsewhere and run a program."""
    repository.commit(TREE)
    home = tmp_path / "home"
    home.mkdir()
    (home / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (home / "post-checkout").chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[url "git://127.0.0.1:1/"]\n insteadOf = git://127.0.0.1\n[core]\n hooksPath = {home}\n'
    )
    bench.environ["HOME"] = str(home)
    bench.build(f"FROM scratch\nADD {origin} /")
    assert not (tmp_path / "ran").exists()


def test_a_git_token_is_in_no_list_of_processes(bench: Bench, server: Web, spied: Spy) -> None:
    """A git in the way writes down its arguments; the server sees the token."""
    bench.secrets = {"GIT_AUTH_TOKEN": lambda: b"canary-9"}
    bench.refused(f"FROM scratch\nADD {server.url('/app.git')} /")
    assert any("Basic " in headers.get("Authorization", "") for headers in server.seen)
    bench.secrets = {}
    url = server.url("/app.git").replace("://", "://me:canary-9@")
    error = bench.refused(f"FROM scratch\nADD {url} /")
    assert "canary" not in spied.log.read_text() + str(error)
    assert any("Basic " in headers.get("Authorization", "") for headers in server.seen[-2:])


def test_git_is_missed_only_when_it_is_needed(bench: Bench, tmp_path: Path) -> None:
    bench.environ["PATH"] = str(tmp_path)
    bench.write(f="f")
    bench.build("FROM scratch\nADD f /")
    assert "the git command is needed" in str(bench.refused("FROM scratch\nADD git://127.0.0.1:1/x.git /"))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("ORIGIN#absent", "has no branch or tag 'absent'"),
        ("ORIGIN#main:absent", '"/absent": not found'),
        ("ORIGIN?checksum=dead", "expected dead"),
        ("--checksum=beef ORIGIN", "expected beef"),
        ("--checksum=xyz ORIGIN", "invalid commit"),
        ("--checksum=beef ORIGIN?checksum=dead", "checksum conflict"),
        ("--keep-git-dir=false ORIGIN?keep-git-dir=true", "keep-git-dir conflict"),
        ("ORIGIN#" + "0" * 40, "git fetch"),
        ("ORIGIN#--upload-pack=touch${IFS}/tmp/pwned", "is no branch, tag or commit"),
        ("ORIGIN#-x", "is no branch, tag or commit"),
        ("ORIGIN#a..b", "is no branch, tag or commit"),
        ("ssh://-oProxyCommand=x/y.git", "want a host"),
        ("git@host:--upload-pack=x", "neither like an option"),
        ("ORIGIN?branch=a&tag=b", "tag and branch conflict"),
        ("ORIGIN?ref=a#b", "ref and fragment conflict"),
        ("ORIGIN?subdir=a#b:c", "subdir is given twice"),
        ("ORIGIN?commit=abcd&checksum=abcd", "checksum and commit conflict"),
        ("ORIGIN?tag=a&tag=b", "several values"),
        ("ORIGIN?brunch=a", "unexpected query 'brunch' (did you mean branch?)"),
        ("ORIGIN?submodules=maybe", "true or false"),
        ("ORIGIN?mtime=never", "checkout or commit"),
        ("git://127.0.0.1:1/x.git", "git ls-remote git://127.0.0.1:1/x.git"),
    ],
)
def test_what_add_of_a_repository_refuses(
    bench: Bench, repository: Repository, origin: str, words: str, problem: str
) -> None:
    repository.commit(TREE)
    error = bench.refused("FROM scratch\nADD " + words.replace("ORIGIN", origin) + " /")
    assert problem in str(error)
    assert error.span is not None
    assert error.span.start == 2


# Named contexts


@pytest.mark.parametrize(
    ("name", "dockerfile", "expected"),
    [
        ("base", "FROM base", {"f": "644 0:0 named"}),
        ("base", "FROM scratch AS base\nCOPY f /x\nFROM base", {"f": "644 0:0 named"}),
        ("base", "FROM absent.invalid/x AS base\nRUN x\nFROM scratch\nCOPY --from=base / /", {"f": "644 0:0 named"}),
        ("base", "FROM absent.invalid/x AS base\nFROM scratch\nCOPY --from=0 f /g", {"g": "644 0:0 named"}),
        ("base", "FROM absent.invalid/x AS base", {"f": "644 0:0 named"}),
        ("busybox", "FROM busybox:latest", {"f": "644 0:0 named"}),
        ("busybox", "FROM scratch\nCOPY --from=BusyBox f /", {"f": "644 0:0 named"}),
        ("busybox", "FROM scratch\nADD f /\nCOPY --from=docker.io/library/busybox f /g", {"f": "644 0:0 main", "g": "644 0:0 named"}),
    ],
)  # fmt: skip
def test_a_named_context_stands_before_stages_and_images(
    bench: Bench, tmp_path: Path, name: str, dockerfile: str, expected: dict[str, str]
) -> None:
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "f").write_text("named")
    (tmp_path / "named" / "hidden").write_text("hidden")
    (tmp_path / "named" / ".dockerignore").write_text("hidden\n.dockerignore\n")
    bench.write(f="main")
    bench.contexts = {name: Context.load(tmp_path / "named")}
    plan = replace(OPTIONS, contexts={name: NamedFiles()})
    assert bench.listing(bench.build(dockerfile, plan)) == expected
    bench.build(dockerfile, plan)
    assert bench.names(StepDone) == []


def test_a_name_may_stand_for_an_image(bench: Bench, busybox_archive: Path) -> None:
    from tests.tierce.test_building import HERE

    with Store.open(bench.root) as store:
        load(str(busybox_archive), store, CopyOptions(HERE))
    image = NamedImage(Reference.parse("busybox").with_default_tag())
    plan = replace(OPTIONS, contexts={"tools": image})
    built = bench.build(
        'FROM scratch\nCOPY --from=tools /bin/busybox /b\nRUN --mount=from=tools,target=/t ["/t/bin/true"]', plan
    )
    assert "b" in bench.listing(built)


# Linked layers


def test_a_linked_layer_is_the_same_on_any_base(bench: Bench) -> None:
    bench.write(f="f", base="1")
    text = "FROM scratch\nCOPY base /dir/\nCOPY --link f /dir/sub/\nWORKDIR /w"
    first = bench.build(text)
    bench.write(base="2")
    second = bench.build(text)
    assert "COPY --link f /dir/sub/" in bench.names(StepCached)
    assert bench.names(StepDone) == ["COPY base /dir/", "WORKDIR /w"]
    assert [first.config.diff_ids[n] == second.config.diff_ids[n] for n in range(2)] == [False, True]
    assert bench.listing(second) == {
        "dir/": "755 0:0", "dir/base": "644 0:0 2", "dir/sub/": "755 0:0", "dir/sub/f": "644 0:0 f", "w/": "755 0:0",
    }  # fmt: skip
    bench.write(base="1")
    assert bench.build(text).config.diff_ids[:2] == first.config.diff_ids[:2]
    assert bench.names(StepDone) == []
    with Store.open(bench.root) as store:
        store.collect()
        for built in (first, second):
            assert len(store.layers.stack(store.facts(built.manifest).layers[-1].chain_id)) == 3


def test_a_linked_layer_of_a_stage_is_reused_too(bench: Bench) -> None:
    bench.write(f="f", base="1")
    text = "FROM scratch AS a\nCOPY f /f\nFROM scratch\nCOPY base /\nCOPY --link --from=a /f /g"
    bench.build(text)
    bench.write(base="2")
    bench.build(text)
    assert bench.names(StepDone) == ["COPY base /"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("COPY --link f /dir/", {"dir/f": "644 0:0 f", "dir/kept": "644 0:0 kept"}),
        ("COPY --link d /dir/", {"dir/one": "644 0:0 1", "dir/kept": "644 0:0 kept"}),
        ("COPY --link f /link/", {"link/": "755 0:0", "link/f": "644 0:0 f"}),
        ("COPY f /link/", {"link": "-> dir", "dir/f": "644 0:0 f"}),
        ("COPY --link --chmod=700 f /link/", {"link": "-> dir", "dir/f": "700 0:0 f"}),
        ("COPY --link --chown=5 f /dir/", {"dir/": "755 5:5", "dir/f": "644 5:5 f"}),
        ("COPY --link --parents d/./sub/two /dir/", {"dir/sub/two": "644 0:0 2", "dir/kept": "644 0:0 kept"}),
        ("WORKDIR /dir\nCOPY --link f .", {"dir/f": "644 0:0 f", "dir/kept": "644 0:0 kept"}),
        ("ADD --link a.tgz /dir/", {"dir/in": "640 7:0 x", "dir/kept": "644 0:0 kept"}),
        ("COPY --link <<A /dir/\na\nA", {"dir/A": "644 0:0 a\n", "dir/kept": "644 0:0 kept"}),
    ],
)
def test_a_linked_layer_knows_nothing_of_its_base(bench: Bench, line: str, expected: dict[str, str]) -> None:
    bench.write(f="f", kept="kept", d__one="1", d__sub__two="2")
    (bench.context / "links").mkdir()
    (bench.context / "links" / "link").symlink_to("dir")
    (bench.context / "a.tgz").write_bytes(archive({"in": "x"}))
    listing = bench.listing(bench.build(f"FROM scratch\nCOPY kept /dir/\nCOPY links /\n{line}"))
    assert {name: listing.get(name) for name in expected} == expected


def test_a_name_of_an_owner_has_no_meaning_in_a_linked_layer(bench: Bench) -> None:
    bench.write(f="f", passwd="who:x:5:6::/:/bin/sh\n")
    bench.build("FROM scratch\nCOPY passwd /etc/\nCOPY --chown=who f /")
    assert "unable to find user who" in str(
        bench.refused("FROM scratch\nCOPY passwd /etc/\nCOPY --link --chown=who f /")
    )


def test_a_killed_build_leaves_nothing_of_its_downloads(server: Web, tmp_path: Path) -> None:
    import subprocess
    import sys

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


def test_fetched_commits_are_cache_that_can_be_pruned(bench: Bench, repository: Repository, origin: str) -> None:
    from tierce.prune import picks_cached, prune

    repository.commit(TREE)
    text = f"FROM scratch\nADD {origin} /"
    listing = bench.listing(bench.build(text))
    with Store.open(bench.root) as store:
        store.collect()
        assert len(list((bench.root / "git").glob("*/*"))) == 1
        assert any(record.label.startswith(f"git {origin} ") for record in store.metadata.cache())
        prune(store, images=lambda _: True, cached=picks_cached(older_than_s=None))
        assert list((bench.root / "git").glob("*/*")) == []
        assert list(store.content.digests()) == []
    assert bench.listing(bench.build(text)) == listing


def test_many_builds_at_once_fetch_the_same_commit(bench: Bench, repository: Repository, origin: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    repository.commit(TREE)
    benches = [Bench(bench.root, bench.context) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        built = list(pool.map(lambda one: one.build(f"FROM scratch\nADD {origin} /"), benches))
    assert len({image.config.diff_ids for image in built}) == 1


def test_a_server_that_falls_silent_is_given_up(bench: Bench, server: Web) -> None:
    from image.errors import RegistryError
    from tierce.downloads import StoredDownloads
    from transfer.registry.transport import Timeouts

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
    import subprocess
    import sys

    server.pages["/large"] = Page(bytes(400 << 20))
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nADD {server.url('/large')} /")
    argv = [sys.executable, "-m", "tierce", "--root", str(tmp_path / "root"), "build", "-q", str(tmp_path)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    assert usage.ru_maxrss < 170 << 10


RULES_TABLE = [
    ("COPY --parents a/b/c.txt /x/", {"x/": "755 0:0", "x/a/": "711 0:0", "x/a/b/": "700 0:0", "x/a/b/c.txt": "644 0:0 c"}),
    ("COPY --parents a/./b/c.txt /x/", {"x/": "755 0:0", "x/b/": "700 0:0", "x/b/c.txt": "644 0:0 c"}),
    ("COPY --parents a/./b /x/", {"x/": "755 0:0", "x/b/": "700 0:0", "x/b/c.txt": "644 0:0 c", "x/b/d.md": "644 0:0 d"}),
    ("COPY --parents **/*.md /", {"a/": "711 0:0", "a/b/": "700 0:0", "a/b/d.md": "644 0:0 d", "top.md": "644 0:0 t"}),
    ("COPY --parents a/./**/*.txt /", {"b/": "700 0:0", "b/c.txt": "644 0:0 c", "e.txt": "644 0:0 e"}),
    ("COPY --parents none/**/x /d/", {}),
    ("COPY --parents a/e.txt top.md /x/", {"x/": "755 0:0", "x/a/": "711 0:0", "x/a/e.txt": "644 0:0 e", "x/top.md": "644 0:0 t"}),
    ("COPY --parents --chown=5 a/e.txt /x/", {"x/": "755 5:5", "x/a/": "711 5:5", "x/a/e.txt": "644 5:5 e"}),
    ("COPY --parents --chmod=700 a/e.txt /x/", {"x/": "700 0:0", "x/a/": "700 0:0", "x/a/e.txt": "700 0:0 e"}),
    ("COPY --exclude=*.md . /x/", {"x/": "755 0:0", "x/a/": "711 0:0", "x/a/b/": "700 0:0", "x/a/b/c.txt": "644 0:0 c", "x/a/b/d.md": "644 0:0 d", "x/a/e.txt": "644 0:0 e"}),
    ("COPY --exclude=**/*.md a /x/", {"x/": "755 0:0", "x/b/": "700 0:0", "x/b/c.txt": "644 0:0 c", "x/e.txt": "644 0:0 e"}),
    ("COPY --exclude=b --exclude=!b/d.md a /x/", {"x/": "755 0:0", "x/b/": "700 0:0", "x/b/d.md": "644 0:0 d", "x/e.txt": "644 0:0 e"}),
    ("COPY --exclude=b a/* /x/", {"x/": "755 0:0", "x/c.txt": "644 0:0 c", "x/d.md": "644 0:0 d", "x/e.txt": "644 0:0 e"}),
    ("COPY --exclude=top.md top.md a/e.txt /x/", {"x/": "755 0:0", "x/e.txt": "644 0:0 e"}),
    ("COPY --exclude=e.txt --parents a /x/", {"x/": "755 0:0", "x/a/": "711 0:0", "x/a/b/": "700 0:0", "x/a/b/c.txt": "644 0:0 c", "x/a/b/d.md": "644 0:0 d"}),
    ("ADD --exclude=b a /x/", {"x/": "755 0:0", "x/e.txt": "644 0:0 e"}),
    ("COPY --chmod=u=rwX,go=rX a /x", {"x/": "755 0:0", "x/b/": "755 0:0", "x/b/c.txt": "644 0:0 c", "x/b/d.md": "644 0:0 d", "x/e.txt": "644 0:0 e"}),
    ("COPY --chmod=a+X top.md /x", {"x": "644 0:0 t"}),
    ("COPY --chmod=g=u top.md /x", {"x": "664 0:0 t"}),
    ("COPY --chmod=u+s,o-r top.md /x", {"x": "4640 0:0 t"}),
    ("COPY --chmod=4750 top.md /x", {"x": "4750 0:0 t"}),
    ("COPY --chmod=0 top.md /x", {"x": "0 0:0 t"}),
    ("COPY --chmod=750 a/e.txt /p/q/", {"p/": "750 0:0", "p/q/": "750 0:0", "p/q/e.txt": "750 0:0 e"}),
    ("COPY --chown=1 top.md /x", {"x": "644 1:1 t"}),
    ("COPY --chown=1:2 top.md /x", {"x": "644 1:2 t"}),
    ("COPY --chown=:2 top.md /x", {"x": "644 0:2 t"}),
    ("COPY etc /etc\nCOPY --chown=who top.md /x", {"x": "644 5:6 t"}),
    ("COPY etc /etc\nCOPY --chown=who:club top.md /x", {"x": "644 5:7 t"}),
    ("COPY etc /etc\nCOPY --chown=who:1 top.md /x", {"x": "644 5:1 t"}),
    ("COPY etc /etc\nCOPY --chown=9:club top.md /x", {"x": "644 9:7 t"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"), RULES_TABLE, ids=[line.partition("\n")[2] or line for line, _ in RULES_TABLE]
)
def test_parents_excludes_modes_and_owners(bench: Bench, line: str, expected: dict[str, str]) -> None:
    bench.write(a__e="e", **{"a__b__c.txt": "c", "a__b__d.md": "d", "a__e.txt": "e", "top.md": "t"})
    (bench.context / "a" / "e").unlink()
    bench.write(etc__passwd="who:x:5:6::/:/bin/sh\n", etc__group="club:x:7:\n")
    for name, mode in (("a", 0o711), ("a/b", 0o700)):
        (bench.context / name).chmod(mode)
    bench.write(**{".dockerignore": ".dockerignore\n" + ("" if "etc" in line else "etc\n")})
    listing = bench.listing(bench.build(f"FROM scratch\n{line}"))
    assert {path: shown for path, shown in listing.items() if not path.startswith("etc/")} == expected
