"""The verbs of an OCI runtime, driven as engines drive them. Runc is driven too, to test the tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import OURS, Runtime, reap, runtime_with_bundle

pytestmark = pytest.mark.root


@pytest.fixture(params=["tierce", pytest.param("runc", marks=pytest.mark.peer)])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    if request.param == "runc" and shutil.which("runc") is None:
        pytest.skip("needs runc")
    found = runtime_with_bundle(OURS if request.param == "tierce" else ("runc",), tmp_path)
    yield found
    found.close()


def eventually(condition: Callable[[], bool]) -> bool:
    for _ in range(500):
        if condition():
            return True
        reap()
        time.sleep(0.01)
    return False


def is_ours(runtime: Runtime) -> bool:
    return runtime.command == OURS


class TestCreateAndStart:
    def test_the_states_of_a_life(self, runtime: Runtime, tmp_path: Path) -> None:
        name, pid_file = runtime.new_id(), tmp_path / "pid"
        runtime.process("sh", "-c", "echo started > /file; sleep 1000")
        runtime.ok("create", "--bundle", str(runtime.bundle), "--pid-file", str(pid_file), name)
        state = runtime.state(name)
        assert (state["status"], state["id"], state["bundle"]) == ("created", name, str(runtime.bundle))
        assert state["pid"] == int(pid_file.read_text())
        assert not (runtime.bundle / "rootfs/file").exists()
        runtime.ok("start", name)
        assert eventually((runtime.bundle / "rootfs/file").exists)
        assert runtime.state(name)["status"] == "running"
        assert runtime("start", name).returncode == 1
        runtime.ok("kill", name, "KILL")
        assert eventually(lambda: runtime.state(name)["status"] == "stopped")
        assert runtime.state(name)["pid"] == 0
        assert runtime("kill", name).returncode == 1
        runtime.ok("delete", name)
        assert runtime("state", name).returncode == 1

    def test_an_id_in_use(self, runtime: Runtime) -> None:
        name = runtime.sleeping()
        done = runtime("create", "--bundle", str(runtime.bundle), name)
        assert done.returncode == 1
        assert b"exist" in done.stderr
        assert runtime.state(name)["status"] == "running"

    def test_a_missing_program_is_told_at_create(self, runtime: Runtime) -> None:
        name = runtime.new_id()
        runtime.process("absent")
        done = runtime("create", "--bundle", str(runtime.bundle), name)
        assert done.returncode == 1
        assert b"executable file not found in $PATH" in done.stderr
        assert runtime("state", name).returncode == 1

    def test_delete_wants_force_for_one_that_runs(self, runtime: Runtime) -> None:
        name = runtime.sleeping()
        assert runtime("delete", name).returncode == 1
        runtime.ok("delete", "--force", name)
        runtime.ok("delete", "--force", name)
        assert runtime("delete", name).returncode == 1

    def test_a_created_container_is_deleted_unstarted(self, runtime: Runtime) -> None:
        name = runtime.new_id()
        runtime.process("true")
        runtime.ok("create", "--bundle", str(runtime.bundle), name)
        runtime.ok("delete", name)

    def test_run_has_the_exit_status_and_leaves_nothing(self, runtime: Runtime) -> None:
        runtime.process("sh", "-c", "echo out; echo err >&2; exit 7")
        done = runtime("run", "--bundle", str(runtime.bundle), runtime.new_id())
        assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
        assert json.loads(runtime.ok("list", "--format", "json")) in ([], None)

    def test_run_forwards_signals(self, runtime: Runtime) -> None:
        runtime.process("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
        command = [
            *runtime.command,
            "--root",
            str(runtime.root),
            "run",
            "--bundle",
            str(runtime.bundle),
            runtime.new_id(),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 9

    def test_list_and_quiet(self, runtime: Runtime) -> None:
        name = runtime.sleeping()
        header, line = runtime.ok("list").splitlines()
        assert header.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
        assert line.split()[0::2][:2] == [name, "running"]
        assert runtime.ok("list", "--quiet") == f"{name}\n"
        assert json.loads(runtime.ok("list", "--format=json"))[0]["id"] == name

    def test_fields_of_a_process_and_its_surroundings(self, runtime: Runtime) -> None:
        device = {"path": "/dev/sub/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6}
        sysctls = {"net/ipv4/ip_forward": "1", "kernel.msgmax": "9000"}
        script = """umask; id -G; echo $HOME $A; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax
stat -c '%a %u %g %t %T' /dev/sub/x; cat /proc/self/oom_score_adj; pwd"""

        def change(document: dict[str, Any]) -> None:
            document["linux"] |= {"devices": [device], "sysctl": sysctls, "maskedPaths": ["/absent"]}
            document["process"] |= {
                "user": {"uid": 0, "gid": 0, "umask": 0o77, "additionalGids": [5, 6, 5]},
                "env": ["PATH=/bin:/usr/bin", "HOME=", "A=first", "A=last"],
                "oomScoreAdj": 100,
                "cwd": "/made/deep",
            }

        runtime.configure(change)
        runtime.process("sh", "-c", script)
        out = runtime.ok("run", "--bundle", str(runtime.bundle), runtime.new_id())
        expected = ["0077", "0 5 6", "/root last", "1", "9000", "640 5 6 1 3", "100", "/made/deep"]
        assert out.splitlines() == expected

    @pytest.mark.parametrize("owner", ["host", "user"])
    def test_control_groups_are_the_containers_own(self, runtime: Runtime, owner: str) -> None:
        """Without a namespace of groups too: what reads its limit there must not read the machine's."""
        if not Path("/sys/fs/cgroup/memory").is_dir():
            pytest.skip("needs the memory controller of cgroup v1")
        own = [{"containerID": 0, "hostID": 0, "size": 10}]

        def change(document: dict[str, Any]) -> None:
            document["linux"]["resources"]["memory"] = {"limit": 64 << 20}
            if owner == "user":
                document["linux"] |= {"uidMappings": own, "gidMappings": own}
                document["linux"]["namespaces"].append({"type": "user"})

        runtime.configure(change)
        runtime.process("cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
        assert runtime.ok("run", "--bundle", str(runtime.bundle), runtime.new_id()) == f"{64 << 20}\n"

    @pytest.mark.parametrize(
        "change",
        [
            {"process": {"env": ["WORD"]}},
            {"process": {"user": {"additionalGids": [-5]}}},
            {"process": {"rlimits": [{"type": "RLIMIT_MOON", "soft": 1, "hard": 1}]}},
            {"linux": {"rootfsPropagation": "moon"}},
            {"linux": {"sysctl": {"vm.swappiness": "1"}}},
            {"linux": {"resources": {"memory": {"limit": 64 << 20, "swap": 32 << 20}}}},
            {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["MOON"]}}},
            {"linux": {"sysctl": {"net/ipv4/absent": "1"}}},
        ],
        ids=lambda change: json.dumps(change)[:50],
    )
    def test_what_a_configuration_may_not_say(self, runtime: Runtime, change: dict[str, Any]) -> None:
        def spoil(document: dict[str, Any]) -> None:
            for part, fields in change.items():
                document[part] |= fields

        runtime.configure(spoil)
        name = runtime.new_id()
        done = runtime("create", "--bundle", str(runtime.bundle), name)
        assert (done.returncode, done.stderr != b"", b"Traceback" in done.stderr) == (1, True, False)
        assert runtime.ok("list", "--quiet") == ""


class TestExec:
    def test_exit_code_and_streams(self, runtime: Runtime) -> None:
        done = runtime("exec", runtime.sleeping(), "sh", "-c", "echo out; echo err >&2; exit 5")
        assert (done.returncode, done.stdout, done.stderr) == (5, b"out\n", b"err\n")

    def test_options(self, runtime: Runtime) -> None:
        script = 'echo "$A $PWD $(id -u):$(id -g)"; grep NoNewPrivs /proc/self/status'
        words = ["--env", "A=b", "--cwd", "/tmp", "--user", "5:6"]
        out = runtime.ok("exec", *words, runtime.sleeping(), "sh", "-c", script)
        assert out == "b /tmp 5:6\nNoNewPrivs:\t1\n"

    def test_process_from_a_file_detached(self, runtime: Runtime, tmp_path: Path) -> None:
        name = runtime.sleeping()
        process = json.loads((runtime.bundle / "config.json").read_text())["process"]
        process |= {"args": ["sh", "-c", "id -u > /tmp/done; sleep 1000"], "user": {"uid": 0, "gid": 0}}
        (tmp_path / "process.json").write_text(json.dumps(process))
        words = ["--process", str(tmp_path / "process.json"), "--detach", "--pid-file", str(tmp_path / "pid")]
        runtime.ok("exec", *words, name)
        assert eventually((runtime.bundle / "rootfs/tmp/done").exists)
        pid = int((tmp_path / "pid").read_text())
        assert pid in json.loads(runtime.ok("ps", "--format", "json", name))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # as the shim that adopted it

    @pytest.mark.parametrize(
        "words", [["--env", "WORD"], ["--cwd", "tmp"], ["--user", "name"], ["--apparmor", "x"]], ids=" ".join
    )
    def test_options_that_cannot_be(self, runtime: Runtime, words: list[str]) -> None:
        done = runtime("exec", *words, runtime.sleeping(), "true")
        assert (done.returncode, done.stderr != b"", b"Traceback" in done.stderr) == (255, True, False)

    @pytest.mark.parametrize("command", ["absent", "/etc"])
    def test_what_cannot_be_executed(self, runtime: Runtime, command: str) -> None:
        assert runtime("exec", runtime.sleeping(), command).returncode == 255

    def test_in_a_stopped_container(self, runtime: Runtime) -> None:
        name = runtime.sleeping()
        runtime.ok("kill", name, "9")
        assert eventually(lambda: runtime.state(name)["status"] == "stopped")
        assert runtime("exec", name, "true").returncode == 255


class TestGroups:
    def test_pause_and_resume(self, runtime: Runtime) -> None:
        name = runtime.sleeping()
        runtime.ok("pause", name)
        assert runtime.state(name)["status"] == "paused"
        assert runtime("exec", name, "true").returncode == 255
        runtime.ok("resume", name)
        assert runtime.state(name)["status"] == "running"
        runtime.ok("exec", name, "true")

    def test_a_created_container_is_paused_and_goes_on(self, runtime: Runtime) -> None:
        name = runtime.new_id()
        runtime.process("sleep", "1000")
        runtime.ok("create", "--bundle", str(runtime.bundle), name)
        runtime.ok("pause", name)
        assert runtime.state(name)["status"] == "paused"
        assert runtime("start", name).returncode == 1
        runtime.ok("resume", name)
        assert runtime.state(name)["status"] == "created"
        runtime.ok("kill", name, "0")
        runtime.ok("start", name)

    def test_a_paused_container_is_deleted_by_force(self, runtime: Runtime) -> None:
        name = runtime.sleeping()
        runtime.ok("pause", name)
        runtime.ok("delete", "--force", name)
        assert runtime("state", name).returncode == 1

    def test_update_and_stats(self, runtime: Runtime, tmp_path: Path) -> None:
        name = runtime.sleeping()
        runtime.ok("update", "--memory", "64m", "--pids-limit", "33", name)
        (tmp_path / "resources").write_text(json.dumps({"cpu": {"quota": 50000, "period": 100000}}))
        runtime.ok("update", "--resources", str(tmp_path / "resources"), name)
        assert runtime("update", "--memory", "64m", "--memory-swap", "32m", name).returncode == 1
        runtime.ok("update", "--memory", "0", name)  # no wish
        data = json.loads(runtime.ok("events", "--stats", name))["data"]
        assert (data["memory"]["usage"]["limit"], data["pids"]["limit"]) == (64 << 20, 33)
        assert data["pids"]["current"] == 1
        assert data["cpu"]["usage"]["total"] > 0

    def test_oom_is_an_event(self, runtime: Runtime) -> None:
        name = runtime.sleeping()
        runtime.ok("update", "--memory", "16m", "--memory-swap", "16m", name)
        command = [*runtime.command, "--root", str(runtime.root), "events", "--interval", "1h", name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as events:
            time.sleep(0.5)  # it tells of what happens while it watches
            runtime("exec", name, "sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1")
            assert events.stdout is not None
            assert json.loads(events.stdout.readline())["type"] == "oom"
            events.terminate()

    def test_ps_as_a_table(self, runtime: Runtime) -> None:
        if shutil.which("ps") is None:
            pytest.skip("needs ps (package procps)")
        header, line = runtime.ok("ps", runtime.sleeping()).splitlines()
        assert "PID" in header.split()
        assert line.endswith("sleep 1000")

    def test_kill_all(self, runtime: Runtime) -> None:
        name = runtime.new_id()
        runtime.process("sh", "-c", "trap : TERM; sleep 1000; sleep 1000")
        runtime.ok("run", "--detach", "--bundle", str(runtime.bundle), name)
        assert eventually(lambda: len(json.loads(runtime.ok("ps", "--format=json", name))) == 2)
        runtime.ok("kill", "--all", name, "SIGKILL")
        assert eventually(lambda: runtime.state(name)["status"] == "stopped")


_HOOK = "#!/bin/sh\n(echo -n $0 $1 ''; cat | tr -d '\\n\\t '; echo) >> $LOG\n"


class TestHooks:
    def hooks(self, runtime: Runtime, *, fail: str = "") -> tuple[Path, Callable[[], list[tuple[str, str]]]]:
        script, log = runtime.bundle / "hook", runtime.bundle / "hooks.log"
        script.write_text(_HOOK)
        shutil.copy(script, runtime.bundle / "rootfs/hook")
        for path in (script, runtime.bundle / "rootfs/hook"):
            path.chmod(0o755)
        kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

        def hook(kind: str) -> dict[str, Any]:
            if kind == fail:
                return {"path": "/bin/false"}
            inside = kind == "startContainer"
            env = ["LOG=/hooks.log" if inside else f"LOG={log}", "PATH=/bin:/usr/bin"]
            return {"path": "/hook" if inside else str(script), "args": ["hook", kind], "env": env}

        runtime.configure(lambda document: document.update(hooks={kind: [hook(kind)] for kind in kinds}))

        def seen() -> list[tuple[str, str]]:
            lines = log.read_text().splitlines() if log.exists() else []
            inside = runtime.bundle / "rootfs/hooks.log"
            lines += inside.read_text().splitlines() if inside.exists() else []
            words = (line.split(" ", 2) for line in lines)
            return [(kind, json.loads(state)["status"]) for _, kind, state in words]

        return log, seen

    def test_order_and_status(self, runtime: Runtime) -> None:
        _, seen = self.hooks(runtime)
        runtime.process("sleep", "1000")
        name = runtime.new_id()
        runtime.ok("create", "--bundle", str(runtime.bundle), name)
        created = [("prestart", "creating"), ("createRuntime", "creating"), ("createContainer", "creating")]
        assert [pair for pair in seen() if pair[0] != "poststart"] == created  # which runc runs too early
        runtime.ok("start", name)
        assert eventually(lambda: len(seen()) == 5)
        assert [kind for kind, _ in seen()] == [*(kind for kind, _ in created), "poststart", "startContainer"]
        runtime.ok("delete", "--force", name)
        assert ("poststop", "stopped") in seen()

    @pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
    def test_failure_ends_the_container(self, runtime: Runtime, kind: str) -> None:
        self.hooks(runtime, fail=kind)
        runtime.process("true")
        name = runtime.new_id()
        done = runtime("create", "--bundle", str(runtime.bundle), name)
        assert (done.returncode, b"hook" in done.stderr) == (1, True)
        assert runtime("state", name).returncode == 1

    def test_one_that_takes_too_long(self, runtime: Runtime) -> None:
        hook = {"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}
        runtime.configure(lambda document: document.update(hooks={"createRuntime": [hook]}))
        name = runtime.new_id()
        done = runtime("create", "--bundle", str(runtime.bundle), name)
        assert (done.returncode, b"hook" in done.stderr) == (1, True)
        assert runtime("state", name).returncode == 1

    def test_failure_after_the_end_only_warns(self, runtime: Runtime) -> None:
        self.hooks(runtime, fail="poststop")
        name = runtime.sleeping()
        done = runtime("delete", "--force", name)
        assert (done.returncode, b"hook" in done.stderr) == (0, True)


class TestDescriptors:
    def test_console_socket(self, runtime: Runtime, tmp_path: Path) -> None:
        name = runtime.new_id()
        runtime.process("sh", "-c", "tty; read x; exit 3", terminal=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "console"))
            listener.listen()
            console = str(tmp_path / "console")
            runtime.ok("create", "--bundle", str(runtime.bundle), "--console-socket", console, name)
            connection, _ = listener.accept()
            _, fds, _, _ = socket.recv_fds(connection, 100, 1)
            connection.close()
        assert stat.S_ISCHR(os.fstat(fds[0]).st_mode)
        runtime.ok("start", name)
        assert b"/dev/pts/0" in os.read(fds[0], 100)
        os.close(fds[0])

    def test_detached_terminal_needs_a_socket(self, runtime: Runtime) -> None:
        runtime.process("true", terminal=True)
        assert runtime("create", "--bundle", str(runtime.bundle), runtime.new_id()).returncode == 1

    def test_preserved_and_no_others(self, runtime: Runtime) -> None:
        runtime.process("sh", "-c", "ls /proc/self/fd; echo given >&3")
        read, write = os.pipe()
        os.set_inheritable(write, True)
        first = 3

        def place() -> None:
            os.dup2(write, first)

        command = ["run", "--preserve-fds", "1", "--bundle", str(runtime.bundle), runtime.new_id()]
        done = runtime(*command, preexec_fn=place, close_fds=False)
        assert (done.returncode, done.stdout.split()) == (0, [b"0", b"1", b"2", b"3", b"4"])
        assert os.read(read, 100) == b"given\n"
        os.close(read)
        os.close(write)

    def test_working_directory_on_a_descriptor(self, runtime: Runtime) -> None:
        """CVE-2024-21626: a descriptor of the host as the way out."""
        for fd in range(3, 12):
            runtime.process("cat", "../../../../etc/hostname", cwd=f"/proc/self/fd/{fd}")
            done = runtime("run", "--bundle", str(runtime.bundle), runtime.new_id())
            assert done.returncode == 1
            assert done.stdout == b""


class TestSeccomp:
    def rules(self, runtime: Runtime, action: str, **more: object) -> None:
        rule = {"names": ["mkdirat", "mkdir"], "action": action}
        seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule], **more}
        runtime.configure(lambda document: document["linux"].update(seccomp=seccomp))

    def test_rules(self, runtime: Runtime) -> None:
        self.rules(runtime, "SCMP_ACT_ERRNO")
        name = runtime.sleeping()
        done = runtime("exec", name, "mkdir", "/new")
        assert (done.returncode, b"Operation not permitted" in done.stderr) == (1, True)

    def test_notify(self, runtime: Runtime, tmp_path: Path) -> None:
        if not is_ours(runtime):
            pytest.skip("Debian's runc is built without notification")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "agent"))
            listener.listen()
            self.rules(runtime, "SCMP_ACT_NOTIFY", listenerPath=str(tmp_path / "agent"), listenerMetadata="meta")
            name = runtime.sleeping()
            connection, _ = listener.accept()
            data, fds, _, _ = socket.recv_fds(connection, 65536, 1)
            connection.close()
        state = json.loads(data)
        assert (state["fds"], state["metadata"], state["state"]["id"]) == (["seccompFd"], "meta", name)
        assert state["pid"] == runtime.state(name)["pid"]
        assert os.readlink(f"/proc/self/fd/{fds[0]}") == "anon_inode:seccomp notify"
        os.close(fds[0])


def test_killed_while_it_creates(runtime: Runtime) -> None:
    """A command that is killed leaves an id that delete can free."""
    if not is_ours(runtime):
        pytest.skip("runc may leave a directory that it cannot delete")
    runtime.process("true")
    runtime.configure(lambda d: d.update(hooks={"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]}))
    name = runtime.new_id()
    command = [*runtime.command, "--root", str(runtime.root), "create", "--bundle", str(runtime.bundle), name]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert eventually(lambda: b"sleep" in b"".join(p.read_bytes() for p in _children(process.pid)))
    hook = next(int(p.parts[2]) for p in _children(process.pid) if b"sleep\x001000" in p.read_bytes())
    process.kill()
    process.wait()
    os.kill(hook, signal.SIGKILL)
    runtime.ok("delete", "--force", name)
    assert runtime("state", name).returncode == 1


def _children(pid: int) -> list[Path]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [Path(f"/proc/{word}/cmdline") for word in file.read().split()]
