"""One more process in a container that runs: where it is, what it may do, and what it does not give away."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from image.errors import CommandNotStarted, ContainerNotFound, InvalidInput, KernelError, TierceError
from runner.runtime import capabilities
from runner.runtime.enter import enter
from runner.runtime.running import Running
from runner.runtime.spawn import Stdio
from runner.runtime.spec import DockerSeccomp, Mount, NamedUser, Process, Rlimit, User
from tests.support.boxes import Box, Finished, drain

pytestmark = pytest.mark.root

_PATH = ("PATH=/bin",)


@dataclass
class Entered:
    """A container that sleeps, held by a pidfd."""

    box: Box
    pidfd: int
    pid: int

    def start(self, *args: str, stdio: Stdio = Stdio(), detached: bool = False, **process: object) -> Running:
        granted = capabilities.granted(capabilities.DEFAULT)
        described = Process(args, _PATH, user=NamedUser(), capabilities=granted)
        wanted = replace(described, **process)  # type: ignore[arg-type]
        filters = DockerSeccomp()
        return enter(
            self.pidfd, wanted, privileges=self.box.privileges, seccomp=filters, stdio=stdio, detached=detached
        )

    def run(self, *args: str, **process: object) -> Finished:
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
        try:
            with self.start(*args, stdio=Stdio(None, pipes[0][1], pipes[1][1]), **process) as running:  # type: ignore[arg-type]
                code = running.wait()
            out, err = (drain(read) for read, _ in pipes)
        finally:
            for fd in (fd for pair in pipes for fd in pair):
                os.close(fd)
        return Finished(code, out, err)

    def sh(self, script: str, **process: object) -> Finished:
        return self.run("sh", "-c", script, **process)


@contextmanager
def entered(box: Box, *args: str) -> Iterator[Entered]:
    with box.started(box.spec(*(args or ("sleep", "1000")))) as container:
        pidfd = os.pidfd_open(container.pid)
        try:
            yield Entered(box, pidfd, container.pid)
        finally:
            os.close(pidfd)


@pytest.fixture
def inside(box: Box) -> Iterator[Entered]:
    with entered(box) as found:
        yield found


def test_every_namespace_and_group_is_the_containers(inside: Entered) -> None:
    names = ("mnt", "pid", "uts", "ipc", "net", "cgroup")
    found = inside.sh("; ".join(f"readlink /proc/self/ns/{name}" for name in names)).out.split()
    assert found == [os.readlink(f"/proc/{inside.pid}/ns/{name}") for name in names]
    with inside.start("sleep", "1000") as running:
        assert Path(f"/proc/{running.pid}/cgroup").read_text() == Path(f"/proc/{inside.pid}/cgroup").read_text()


def test_rights_are_those_asked_for(inside: Entered) -> None:
    script = "grep -E 'Cap|NoNewPrivs|Seccomp:|Sig(Blk|Ign)' /proc/self/status; ulimit -n"
    lines = inside.sh(script, rlimits=(Rlimit("RLIMIT_NOFILE", 64, 64),), no_new_privileges=True).out.split()
    assert dict(zip(lines[::2], lines[1::2], strict=False)) == {
        "CapInh:": "0000000000000000", "CapPrm:": "00000000a80425fb", "CapEff:": "00000000a80425fb",
        "CapBnd:": "00000000a80425fb", "CapAmb:": "0000000000000000", "NoNewPrivs:": "1", "Seccomp:": "2",
        "SigBlk:": "0000000000000000", "SigIgn:": "0000000000000000",
    }  # fmt: skip
    assert lines[-1] == "64"


@pytest.mark.parametrize("user", [NamedUser("alice"), User(1000, 1001, additional_gids=(10,))], ids=["named", "number"])
def test_user_and_home(inside: Entered, user: User | NamedUser) -> None:
    out = inside.sh("echo $(id -u):$(id -g) $HOME $PWD", user=user, cwd="/tmp").out
    assert out == "1000:1001 /home/alice /tmp\n"


def test_exit_codes_and_output(inside: Entered) -> None:
    assert inside.sh("echo out; echo err >&2; exit 7") == Finished(7, "out\n", "err\n")
    with inside.start("sleep", "1000") as running:
        running.kill(signal.SIGTERM)
        assert running.wait() == 128 + signal.SIGTERM


def test_closing_kills_the_process_and_not_the_container(inside: Entered) -> None:
    with inside.start("sleep", "1001") as running:
        pid = running.pid
    assert not Path(f"/proc/{pid}").exists()
    assert inside.sh("true").code == 0


def test_terminal(inside: Entered) -> None:
    with inside.start("sh", "-c", "tty; stty size; exit 3", terminal=True, console_size=(12, 34)) as running:
        assert running.console is not None
        seen = b""
        with suppress(OSError):
            while chunk := os.read(running.console, 1000):
                seen += chunk
        assert seen.split() == [b"/dev/pts/0", b"12", b"34"]
        assert running.wait() == 3


def test_detached_outlives_its_launcher(inside: Entered) -> None:
    with inside.start("sleep", "1002", detached=True) as running:
        pid = running.pid
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001002\x00"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # adopted by us, as a shim adopts it; until it is, the container's pid 1 could not end


@pytest.mark.parametrize(
    ("process", "kind", "text"),
    [
        ({"args": ("absent",)}, CommandNotStarted, "executable file not found"),
        ({"args": ("/etc",)}, CommandNotStarted, "is a directory"),
        ({"cwd": "/absent"}, KernelError, "working directory: .* /absent: no such file"),
        ({"user": NamedUser("mallory")}, InvalidInput, "unable to find user mallory"),
        ({"cwd": "/proc/self/fd/4"}, TierceError, "working directory"),
        ({"cwd": "/proc/self/fd/7"}, TierceError, "working directory"),
    ],
    ids=["missing", "directory", "cwd", "user", "the lease", "a descriptor"],
)
def test_refusals_leave_nothing(
    inside: Entered, process: dict[str, object], kind: type[TierceError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        inside.run(**{"args": ("true",), **process})
    assert inside.sh("set -- /proc/[0-9]*; echo $#").out == "2\n"  # pid 1 and sh


def test_a_container_that_has_ended(box: Box) -> None:
    with box.started(box.spec("sleep", "1000")) as container:
        pidfd = os.pidfd_open(container.pid)
        container.kill()
        container.wait()
        with pytest.raises(ContainerNotFound):
            enter(pidfd, Process(("true",)), privileges=box.privileges)
        os.close(pidfd)


class TestEscapes:
    def test_no_descriptor_but_those_given(self, inside: Entered) -> None:
        given = os.open("/", os.O_RDONLY)
        os.set_inheritable(given, True)
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            with inside.start(
                "sh", "-c", "echo hello >&3; ls /proc/self/fd >&3", stdio=Stdio(extra=(write,))
            ) as running:
                assert running.wait() == 0
            assert drain(read).split() == ["hello", "0", "1", "2", "3", "4"]  # 4 is ls's own
        finally:
            for fd in (given, read, write):
                os.close(fd)

    def test_the_interpreter_cannot_be_written_through_proc_self_exe(
        self, spoilt_box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """CVE-2019-5736: a program that is a link to /proc/self/exe executes what started it."""
        interpreter = tmp_path / "python3"  # a copy, which nobody else executes: else it is "text file busy" anyway
        shutil.copy(os.path.realpath(sys.executable), interpreter)
        (spoilt_box.rootfs / "evil").symlink_to("/proc/self/exe")
        spec = spoilt_box.spec("sleep", "1000")
        libraries = []
        for path in ("/lib", "/lib64", "/usr/lib"):
            if Path(path).exists():
                (spoilt_box.rootfs / path[1:]).mkdir(parents=True, exist_ok=True)
                libraries.append(Mount(path, "bind", os.path.realpath(path), ("rbind", "ro")))
        attack = (
            "import os; fd = os.open('/proc/self/exe', os.O_PATH); os.set_inheritable(fd, True);"
            "os.execv('/bin/sh', ['sh', '-c', f'exec 2>&1; for i in 1 2 3 4 5 6 7 8; do sleep 0.05; : >> /proc/self/fd/{fd} && echo open; done'])"
        )
        with spoilt_box.started(replace(spec, mounts=(*spec.mounts, *libraries))) as container:
            pidfd = os.pidfd_open(container.pid)
            monkeypatch.setattr(sys, "executable", str(interpreter))
            inside, (read, write) = Entered(spoilt_box, pidfd, container.pid), os.pipe2(os.O_CLOEXEC)
            with inside.start("/evil", "-I", "-S", "-c", attack, stdio=Stdio(None, write), detached=True) as running:
                pid = running.pid
            os.waitpid(pid, 0)  # the watcher, which executes the copy as well, has ended long before
            said = drain(read)
            for fd in (pidfd, read, write):
                os.close(fd)
        assert said.endswith("Read-only file system\n")
        assert "open" not in said

    def test_processes_of_the_container_cannot_look_into_it(self, inside: Entered) -> None:
        """While it waits for a terminal's size or a slow disk, it is somebody else's."""
        from runner.runtime.enter import plan_entry

        steps = [
            step.name
            for step in plan_entry(Process(("true",)), None, inside.box.privileges, pid=1, flags=0, container_id="x")
        ]
        assert steps.index("hide_process") < steps.index("enter_container")
