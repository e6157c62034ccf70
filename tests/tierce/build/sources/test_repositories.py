"""ADD of git repositories, by the real git from its own daemon."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builder.progress import StepDone
from store.store import Store
from tests.support.git import Repository
from tests.support.web import Page, Web
from tests.tierce.build.sources.conftest import Bench, Spy
from tierce.prune import picks_cached, prune

pytestmark = pytest.mark.root


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
        ("ssh://git@127.0.0.1:1/x.git", "git ls-remote ssh://127.0.0.1:1/x.git: "),
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


def test_fetched_commits_are_cache_that_can_be_pruned(bench: Bench, repository: Repository, origin: str) -> None:
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
    repository.commit(TREE)
    benches = [Bench(bench.root, bench.context) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        built = list(pool.map(lambda one: one.build(f"FROM scratch\nADD {origin} /"), benches))
    assert len({image.config.diff_ids for image in built}) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_build_ends_the_git_that_waits(tmp_path: Path, number: signal.Signals) -> None:
    """A server that accepts and says nothing; the fixture that watches processes finds a git that stays."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        (tmp_path / "Dockerfile").write_text(f"FROM scratch\nADD git://127.0.0.1:{port}/x.git /")
        argv = [sys.executable, "-m", "tierce", "--root", str(tmp_path / "root"), "build", "-q", str(tmp_path)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            silent.settimeout(60)
            connection, _ = silent.accept()
            with connection:
                process.send_signal(number)
                _, said = process.communicate(timeout=30)
            assert process.returncode != 0
            assert b"Traceback" not in said
