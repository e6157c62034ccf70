"""A throw-away user of this machine, who runs ``tierce`` as anybody would."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.cli import Result
from tests.support.process import need

_SUBORDINATE = (Path("/etc/subuid"), Path("/etc/subgid"))
_TUN = Path("/dev/net/tun")
_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class OrdinaryUser:
    """Has a home of their own; calling it runs ``tierce`` as them, which must succeed."""

    name: str
    uid: int
    home: Path

    def argv(self, *args: str | Path) -> list[str]:
        return self._interpreter("-m", "tierce", *args)

    def _interpreter(self, *args: str | Path) -> list[str]:
        environ = [f"HOME={self.home}", "PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1"]
        who = ["setpriv", "--reuid", self.name, "--regid", self.name, "--init-groups", "env", "-i", *environ]
        return [*who, sys.executable, *map(str, args)]

    def __call__(self, *args: str | Path, timeout_s: float = 600) -> Result:
        result = self.attempt(*args, timeout_s=timeout_s)
        assert result.code == 0, str(result)
        return result

    def attempt(self, *args: str | Path, timeout_s: float = 600, environ: tuple[str, ...] = ()) -> Result:
        argv = self.argv(*args)
        at = argv.index(sys.executable)
        argv[at:at] = environ
        done = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            cwd=self.home,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
        return Result(tuple(argv), done.returncode, done.stdout, done.stderr)

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        return self.start_program("-m", "tierce", *args)

    def start_program(self, *args: str | Path) -> subprocess.Popen[str]:
        """The interpreter as them, with ``args``."""
        return subprocess.Popen(
            self._interpreter(*args), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self.home,
        )  # fmt: skip

    def give(self, path: Path) -> Path:
        """A copy of a file or a directory that is theirs."""
        copy = self.home / f"{secrets.token_hex(4)}-{path.name}"
        (shutil.copytree if path.is_dir() else shutil.copy)(path, copy)
        subprocess.run(["chown", "-R", f"{self.name}:", copy], check=True)
        return copy


@contextmanager
def ordinary_user(*, ranges: bool, home_in: Path | None = None) -> Iterator[OrdinaryUser]:
    """With or without lines in /etc/subuid and /etc/subgid; all is as it was afterwards."""
    need("useradd")
    need("setpriv")
    _need_readable()
    name = f"tierce-{secrets.token_hex(4)}"
    with ExitStack() as after:
        for path in _SUBORDINATE:
            _restored(path, after)
        home = Path(tempfile.mkdtemp(prefix="tierce-fixtures-", dir=home_in))
        after.callback(shutil.rmtree, home)
        subprocess.run(["useradd", "--home-dir", home, "--no-create-home", name], check=True)
        after.callback(remove, name)
        uid = int(subprocess.run(["id", "-u", name], check=True, capture_output=True, text=True).stdout)
        os.chown(home, uid, -1)
        for path in _SUBORDINATE:
            others = [line for line in path.read_text().splitlines() if not line.startswith(f"{name}:")]
            own = [f"{name}:{700_000_000}:65536"] if ranges else []
            path.write_text("".join(f"{line}\n" for line in [*others, *own]))
        if _TUN.exists():  # what udev does on most machines
            mode = stat.S_IMODE(_TUN.stat().st_mode)
            after.callback(_TUN.chmod, mode)
            _TUN.chmod(0o666)
        after.callback(shutil.rmtree, Path(f"/tmp/tierce-{uid}"), ignore_errors=True)
        yield OrdinaryUser(name, uid, home)


def _restored(path: Path, after: ExitStack) -> None:
    backup = path.with_name(f"{path.name}-")  # which useradd and userdel write
    before = {each: each.read_bytes() if each.exists() else None for each in (path, backup)}

    def restore() -> None:
        for each, content in before.items():
            if content is None:
                each.unlink(missing_ok=True)
            else:
                each.write_bytes(content)

    after.callback(restore)
    path.touch()


def remove(name: str) -> None:
    """With the ranges, which userdel takes back where it knows of them."""
    subprocess.run(["userdel", name], check=True)


def _need_readable() -> None:
    """Another user can reach the interpreter and the sources, or a skip that says what is in the way."""
    if path := unreadable():
        import pytest  # here, because the benchmarks have ordinary users too

        pytest.skip(f"needs {path} open to other users (chmod o+x)")


def unreadable() -> Path | None:
    """What keeps other users from the interpreter and the sources."""
    found = _with_parents(Path(sys.executable).resolve(), Path(sys.prefix).resolve(), _PACKAGE)
    return next((path for path in found if not path.stat().st_mode & 0o001), None)


def _with_parents(*paths: Path) -> Sequence[Path]:
    return [each for path in paths for each in (path, *path.parents)]
