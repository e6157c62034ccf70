"""Git repositories for ADD and for contexts. Implements ``builder.ports.Repositories``.

Asking for a branch's commit is one ``ls-remote``. A commit that no build had yet is fetched
without its past into a repository of the session, which the store then keeps
(``store.repositories``); from there each build checks it out for itself.

Spec: dockerfile.md 1.5, row "ADD git"; 4 (key by commit).
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from builder.dockerfile.remotes import GitSource, shown
from image.errors import NotFound, VerificationError
from store.content import storage_errors
from store.repositories import Repositories, copy_linked
from store.store import Session
from tierce.build.git_command import GitCommand, GitFailed, Remote

_WHOLE: Final = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_HELD: Final = "refs/tierce/held"
_PROTOCOLS: Final = ("http", "https", "ssh", "git")


class StoredRepositories:
    """Repositories as one build sees them.

    ``credentials`` are secrets by id (see ``git_command.Remote``), ``agent`` is the socket of an SSH agent.
    """

    def __init__(
        self,
        session: Session,
        environ: Mapping[str, str],
        credentials: Mapping[str, Callable[[], bytes]],
        agent: Path | None = None,
        *,
        protocols: Sequence[str] = _PROTOCOLS,
    ) -> None:
        self._session = session
        self._kept = Repositories(session.store.root, session.store.metadata)
        self._credentials = credentials
        self._git = GitCommand(environ, agent, protocols)
        self._lock = threading.Lock()
        self._checked_out: dict[tuple[GitSource, str], Future[Path]] = {}

    def abort(self) -> None:
        self._git.abort()

    def commit(self, source: GitSource) -> str:
        """See ``builder.ports.Repositories``. Raises VerificationError when it is not the commit that was promised."""
        ref = source.ref or (source.checksum if _WHOLE.match(source.checksum) else "")
        commit = ref if _WHOLE.match(ref) else self._ask(source, ref)
        if not commit.startswith(source.checksum):
            raise VerificationError(
                f"{shown(source.remote)}: {ref or 'the default branch'} is at commit {commit}, expected {source.checksum}"
            )
        return commit

    def _ask(self, source: GitSource, ref: str) -> str:
        remote = Remote.of(source.remote, self._credentials)
        names = _names(ref)
        listed = self._git.run(remote, "ls-remote", "--", remote.url, *names)
        found = {name: commit for commit, _, name in (line.partition("\t") for line in listed.splitlines())}
        for name in names:
            if _WHOLE.match(found.get(name, "")):
                return found[name]
        raise NotFound(f"{remote.shown} has no branch or tag {ref!r}" if ref else f"{remote.shown} has no commits")

    def check_out(self, source: GitSource, commit: str) -> Path:
        """See ``builder.ports.Repositories``."""
        mine: Future[Path] = Future()
        with self._lock:
            shared = self._checked_out.setdefault((source, commit), mine)
        if shared is mine:
            try:
                with storage_errors(f"check out {shown(source.remote)}"):
                    mine.set_result(self._check_out(source, commit))
            except BaseException as error:
                mine.set_exception(error)
                raise
        return shared.result()

    # Fetching

    def _check_out(self, source: GitSource, commit: str) -> Path:
        remote = Remote.of(source.remote, self._credentials)
        tree = self._session.scratch() / "files"
        tree.mkdir()
        self._copy_repository(remote, commit, tree / ".git")
        self._git.run(remote, "config", "core.bare", "false", cwd=tree)
        self._git.run(remote, "config", "remote.origin.url", remote.url, cwd=tree)
        self._git.run(remote, "checkout", "--quiet", "--force", "--detach", commit, cwd=tree)
        if source.submodules and (tree / ".gitmodules").is_file():
            self._update_submodules(remote, tree)
        time_s = self._commit_time_s(remote, commit, tree) if source.commit_times else None
        if not source.keep_git_dir:
            _remove_git_directories(tree)
        if time_s is not None:
            _set_times(tree, time_s)
        return tree

    def _copy_repository(self, remote: Remote, commit: str, target: Path) -> None:
        """A repository with the commit, from an earlier fetch or a new one."""
        if self._kept.copy(remote.url, commit, target):
            return
        fresh = self._session.scratch() / "repository"
        if not self._kept.inherit(remote.url, fresh):
            kind = "sha256" if len(commit) == 64 else "sha1"
            self._git.run(remote, "init", "--quiet", "--bare", "--template=", f"--object-format={kind}", str(fresh))
        self._fetch_commit(remote, commit, fresh)
        copy_linked(fresh, target)
        self._kept.adopt(fresh, remote.url, commit, f"git {remote.shown} {commit[:12]}")

    def _fetch_commit(self, remote: Remote, commit: str, repository: Path) -> None:
        """One commit without its past; where a server can't do that, all branches and tags."""
        options = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        try:
            self._git.run(remote, *options, "--depth=1", "--", remote.url, f"+{commit}:{_HELD}", cwd=repository)
        except GitFailed as first:
            everything = ("+refs/heads/*:refs/tierce/heads/*", "+refs/tags/*:refs/tierce/tags/*")
            try:
                self._git.run(remote, *options, "--", remote.url, *everything, cwd=repository)
                self._git.run(remote, "update-ref", _HELD, f"{commit}^{{commit}}", cwd=repository)
            except GitFailed:
                raise first from None

    def _update_submodules(self, remote: Remote, tree: Path) -> None:
        words = ("submodule", "--quiet", "update", "--init", "--recursive")
        try:
            self._git.run(remote, *words, "--depth=1", cwd=tree)
        except GitFailed as first:  # a server that gives no single commits
            try:
                self._git.run(remote, *words, cwd=tree)
            except GitFailed:
                raise first from None

    def _commit_time_s(self, remote: Remote, commit: str, tree: Path) -> int:
        return int(self._git.run(remote, "show", "--no-patch", "--format=%ct", commit, cwd=tree).split()[0])


def _names(ref: str) -> list[str]:
    """What a ref may be called in full, best first: a branch wins over a tag, as in git checkout."""
    if not ref:
        return ["HEAD"]
    if ref.startswith("refs/"):
        return [f"{ref}^{{}}", ref]
    return [f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/{ref}^{{}}", f"refs/{ref}"]


def _remove_git_directories(tree: Path) -> None:
    """The repository, and the files in submodules that point into it."""
    shutil.rmtree(tree / ".git")
    for directory, _, files in os.walk(tree):
        if ".git" in files:
            os.unlink(os.path.join(directory, ".git"))


def _set_times(tree: Path, time_s: int) -> None:
    for directory, directories, files in os.walk(tree, topdown=False):
        for name in (*files, *directories):
            os.utime(os.path.join(directory, name), (time_s, time_s), follow_symlinks=False)
    os.utime(tree, (time_s, time_s))
