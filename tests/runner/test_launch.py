"""Containers as they are from inside, and what is left of them outside."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from image.errors import CommandNotStarted, InvalidInput, KernelError, NotPermitted, TierceError
from runner.runtime import capabilities, state
from runner.runtime.privileges import Cgroups, Privileges
from runner.runtime.spawn import Stdio
from runner.runtime.spec import Capabilities, Mount, Resources, Rlimit, Spec, User
from tests.support.boxes import Box

pytestmark = pytest.mark.root

_DOCKER_STATUS = {
    "CapInh": "0000000000000000",
    "CapPrm": "00000000a80425fb",
    "CapEff": "00000000a80425fb",
    "CapBnd": "00000000a80425fb",
    "CapAmb": "0000000000000000",
    "NoNewPrivs": "0",
    "Seccomp": "2",
}


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait for what the kernel does in its own time; the caller asserts the outcome."""
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


class TestInside:
    def test_every_namespace_is_fresh(self, box: Box) -> None:
        names = ("mnt", "pid", "uts", "ipc", "net", "cgroup")
        found = box.sh("; ".join(f"readlink /proc/self/ns/{name}" for name in names)).out.split()
        assert len(found) == len(names)
        assert not set(found) & {os.readlink(f"/proc/self/ns/{name}") for name in names}

    def test_status_lines_are_dockers(self, box: Box) -> None:
        lines = (line.split(":\t") for line in box.sh("cat /proc/self/status").out.splitlines() if ":\t" in line)
        status = dict(line for line in lines if len(line) == 2)
        assert {name: status[name] for name in _DOCKER_STATUS} == _DOCKER_STATUS

    def test_a_user_has_only_the_bounding_set(self, box: Box) -> None:
        out = box.sh("grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status", user="alice").out.split()
        assert out[1::2] == ["0000000000000000", "0000000000000000", "00000000a80425fb"]

    def test_privileged_has_every_capability_and_no_filter(self, box: Box) -> None:
        sets = capabilities.granted(capabilities.choose(privileged=True))
        spec = replace(box.spec("grep", "-E", "CapEff|Seccomp:", "/proc/self/status", capabilities=sets), seccomp=None)
        out = box.run(replace(spec, masked_paths=(), readonly_paths=())).out.split()
        held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
        assert out == ["CapEff:", held.split()[1], "Seccomp:", "0"]

    def test_masked_and_read_only_paths(self, box: Box) -> None:
        script = """
cat /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c
ls /sys/firmware /proc/acpi 2>/dev/null | grep -v : | wc -w
for path in /proc/sys/kernel/domainname /proc/sysrq-trigger /sys/kernel/uevent_helper; do
    test -e $path && (echo x > $path) 2>&1 | sed 's/.*: //'
done
"""
        first, second, *refusals = box.sh(script).out.splitlines()
        assert (first, second) == ("0", "0")
        assert refusals
        assert set(refusals) == {"Read-only file system"}

    def test_devices_are_dockers_and_others_are_refused(self, box: Box) -> None:
        listed = box.sh("cd /dev; ls; stat -c '%n %t:%T %a' full null random tty urandom zero").out
        assert listed.split("\n")[:15] == [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
            "urandom", "zero", "full 1:7 666",
        ]  # fmt: skip
        if "devices" not in box.privileges.cgroups.v1:
            pytest.skip("needs a cgroup v1 devices controller")
        out = box.sh("mknod /dev/kmsg2 c 1 11 && cat /dev/kmsg2; mknod /dev/null2 c 1 3 && echo fine > /dev/null2")
        assert out.code == 0
        assert out.err == "cat: can't open '/dev/kmsg2': Operation not permitted\n"

    def test_device_list_of_cgroup_v2(self, box: Box) -> None:
        if not box.privileges.cgroups.v2:
            pytest.skip("needs a cgroup v2 tree")
        only_v2 = replace(box.privileges, cgroups=Cgroups({}, box.privileges.cgroups.v2))
        script = "mknod /dev/kmsg2 c 1 11 && cat /dev/kmsg2; mknod /dev/null2 c 1 3 && echo fine > /dev/null2; tty; cat /proc/1/cgroup | tail -1"
        out = Box(box.rootfs, box.root, only_v2).sh(script)
        assert out.err == "cat: can't open '/dev/kmsg2': Operation not permitted\n"
        assert out.out == "not a tty\n0::/\n"

    def test_mount_options(self, box: Box) -> None:
        lines = {line.split()[1]: line.split() for line in box.sh("cat /proc/mounts").out.splitlines()}
        words = lines["/dev/shm"][3].removesuffix(",inode64")  # said where kernels make it the default
        assert (lines["/dev/shm"][2], words) == ("tmpfs", "rw,nosuid,nodev,noexec,relatime,size=65536k")
        assert lines["/sys"][3].startswith("ro,nosuid,nodev,noexec")
        assert "gid=5,mode=620,ptmxmode=666" in lines["/dev/pts"][3]

    def test_pid_one_hostname_and_loopback(self, box: Box) -> None:
        out = box.sh("echo $$; hostname; ping -c 1 -W 1 127.0.0.1 > /dev/null && echo up; ls -d /sys/class/net/*").out
        assert out.split() == ["1", "box", "up", "/sys/class/net/lo"]

    def test_environment(self, box: Box) -> None:
        out = box.run(box.spec("env", env=("PATH=/bin", "A=1=2", "HOSTNAME=box"))).out.split()
        assert sorted(out) == ["A=1=2", "HOME=/root", "HOSTNAME=box", "PATH=/bin"]

    def test_no_descriptor_leaks(self, box: Box) -> None:
        fd = os.open("/", os.O_RDONLY)
        os.set_inheritable(fd, True)
        try:
            assert box.sh("ls /proc/self/fd").out.split() == ["0", "1", "2", "3"]  # 3 is ls's own
        finally:
            os.close(fd)

    def test_signals_are_default_and_unblocked(self, box: Box) -> None:
        out = box.run(box.spec("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")).out.split()
        assert out[1::2] == ["0000000000000000", "0000000000000000"]

    def test_seccomp_refuses_as_docker_does(self, box: Box) -> None:
        out = box.sh("mount -t tmpfs x /tmp; unshare -n true; hostname other")
        assert out.err.splitlines() == [
            "mount: permission denied (are you root?)",
            "unshare: unshare(0x40000000): Operation not permitted",
            "hostname: sethostname: Operation not permitted",
        ]

    def test_read_only_root(self, box: Box) -> None:
        spec = box.spec("sh", "-c", "touch /file; touch /dev/shm/file && echo fine")
        done = box.run(replace(spec, root=replace(spec.root, readonly=True)))
        assert (done.out, done.err) == ("fine\n", "touch: /file: Read-only file system\n")

    def test_working_directory_is_made(self, spoilt_box: Box) -> None:
        assert spoilt_box.run(spoilt_box.spec("pwd", cwd="/made/here")).out == "/made/here\n"

    def test_limits_that_cannot_be_raised_are_a_warning(self, box: Box) -> None:
        limits = (Rlimit("RLIMIT_NOFILE", 99, 100), Rlimit("RLIMIT_CORE", 2**63, 2**63))
        with box.started(box.spec("sh", "-c", "test $(ulimit -n) = 99", rlimits=limits)) as container:
            assert container.wait() == 0
            raised = not any("RLIMIT_CORE" in warning for warning in container.warnings)
        assert raised is box.privileges.can_raise_limits or raised  # a limit may be infinite already

    def test_bind_mounts(self, box: Box, tmp_path: Path) -> None:
        (tmp_path / "data/below").mkdir(parents=True)
        (tmp_path / "data/file").write_text("content")
        mounts = (
            Mount("/rw", "bind", str(tmp_path / "data"), ("rbind",)),
            Mount("/ro/deep", "bind", str(tmp_path / "data"), ("rbind", "rro")),
            Mount("/etc/one", "bind", str(tmp_path / "data/file"), ("bind", "ro", "noexec")),
        )
        spec = box.spec("sh", "-c", "cat /etc/one; echo new > /rw/new; touch /ro/deep/x; echo y > /etc/one")
        rootfs = tmp_path / "over"
        with_mounts = replace(spec, mounts=spec.mounts + mounts)
        from tests.support.boxes import make_rootfs

        done = Box(make_rootfs(rootfs), box.root, box.privileges).run(with_mounts)
        assert done.out == "content"
        assert done.err.count("Read-only file system") == 2
        assert (tmp_path / "data/new").read_text() == "new\n"
        assert list((rootfs / "rw").iterdir()) == []

    def test_limits_of_control_groups(self, box: Box) -> None:
        if "pids" not in box.privileges.cgroups.v1:
            pytest.skip("needs a cgroup v1 pids controller")
        limits = Resources(memory_limit=64 << 20, pids_limit=20, cpu_quota_us=50_000, cpu_period_us=100_000)
        spec = box.spec(
            "sh", "-c", "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us"
        )
        assert box.run(replace(spec, resources=limits)).out.split() == [str(64 << 20), "20", "50000"]


@dataclass(frozen=True)
class UserCase:
    text: str
    expected: str


class TestUsers:
    @pytest.mark.parametrize(
        "case",
        [
            UserCase("", "0:0 0 /root"),
            UserCase("alice", "1000:1001 1001,10,29 /home/alice"),
            UserCase("1000", "1000:1001 1001,10,29 /home/alice"),
            UserCase("alice:users", "1000:100 100 /home/alice"),
            UserCase("4242", "4242:0 0 /"),
            UserCase("4242:4343", "4242:4343 4343 /"),
        ],
        ids=lambda case: case.text or "root",
    )
    def test_identity(self, box: Box, case: UserCase) -> None:
        out = box.sh("echo $(id -u):$(id -g) $(id -G | tr ' ' ',') $HOME", user=case.text).out
        assert out == case.expected + "\n"

    @pytest.mark.parametrize("text", ["mallory", "alice:nobody", "99999999999"])
    def test_unknown(self, box: Box, text: str) -> None:
        with pytest.raises(InvalidInput, match=r"unable to find|must be in range"):
            box.run(box.spec("true", user=text))

    def test_numeric_user_of_a_bundle(self, box: Box) -> None:
        spec = box.spec("sh", "-c", "echo $(id -u) $(id -G) $(umask)")
        user = User(7, 8, umask=0o77, additional_gids=(9, 8))
        done = box.run(replace(spec, process=replace(spec.process, user=user)))
        assert done.out == "7 8 9 0077\n"

    @pytest.mark.parametrize("target", ["/../../../../etc/passwd", "/proc/1/root/etc/passwd", "/dev/zero", "/fifo"])
    def test_hostile_passwd_gives_nothing_of_the_host(self, spoilt_box: Box, target: str) -> None:
        os.mkfifo(spoilt_box.rootfs / "fifo")
        passwd = spoilt_box.rootfs / "etc/passwd"
        passwd.unlink()
        passwd.symlink_to(target)
        with pytest.raises(InvalidInput, match="unable to find user daemon"):
            spoilt_box.run(spoilt_box.spec("true", user="daemon"))

    def test_a_pipe_can_be_opened_again_by_the_user(self, box: Box) -> None:
        assert box.sh("echo again > /dev/stdout; echo more > /proc/self/fd/1", user="alice").out == "again\nmore\n"


class TestHostileRoot:
    @pytest.mark.parametrize("name", ["dev", "etc", "tmp"])
    def test_links_to_the_host_reach_nothing(self, spoilt_box: Box, tmp_path: Path, name: str) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        target = spoilt_box.rootfs / name
        target.rename(spoilt_box.rootfs / f"{name}.real")
        target.symlink_to("../" * 20 + str(outside)[1:])
        spec = spoilt_box.spec("true")
        mounts = (*spec.mounts, Mount("/tmp/made/here", "tmpfs", "tmpfs"))
        with suppress(KernelError):  # a link that leads nowhere inside may be refused
            spoilt_box.run(replace(spec, mounts=mounts))
        assert list(outside.iterdir()) == []

    def test_proc_that_is_a_link_is_refused(self, spoilt_box: Box) -> None:
        (spoilt_box.rootfs / "proc").rmdir()
        (spoilt_box.rootfs / "proc").symlink_to("tmp")
        with pytest.raises(KernelError) as caught:
            spoilt_box.run(spoilt_box.spec("true"))
        assert (caught.value.stage, caught.value.errno) == ("mounts", errno.ELOOP)

    def test_working_directory_by_descriptor(self, box: Box) -> None:
        with pytest.raises(TierceError):
            box.run(box.spec("true", cwd="/proc/self/fd/7"))


@dataclass(frozen=True)
class FailureCase:
    command: str
    status: int
    why: str


class TestExit:
    @pytest.mark.parametrize("code", [0, 1, 42, 255])
    def test_exit_code(self, box: Box, code: int) -> None:
        assert box.sh(f"exit {code}").code == code

    def test_killed_by_a_signal(self, box: Box) -> None:
        with box.started(box.spec("sleep", "1000")) as container:
            container.kill(signal.SIGTERM)  # pid 1 without a handler: ignored
            container.kill(signal.SIGKILL)
            assert container.wait() == 128 + signal.SIGKILL

    def test_handled_signal(self, box: Box) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
        with box.started(box.spec("sh", "-c", script), stdio=Stdio(None, write, None)) as container:
            assert os.read(read, 10) == b"ready\n"
            container.kill(signal.SIGTERM)
            assert container.wait() == 7
        os.close(read)
        os.close(write)

    @pytest.mark.parametrize(
        "case",
        [
            FailureCase("nothing-of-this-name", 127, "executable file not found in $PATH"),
            FailureCase("/absent", 127, "stat /absent: no such file or directory"),
            FailureCase("/etc/passwd", 126, "permission denied"),
            FailureCase("/etc", 126, "is a directory"),
        ],
        ids=lambda case: case.command,
    )
    def test_command_that_cannot_be_executed(self, box: Box, case: FailureCase) -> None:
        with pytest.raises(CommandNotStarted) as caught:
            box.run(box.spec(case.command))
        assert (caught.value.status, caught.value.why) == (case.status, case.why)

    def test_script_without_its_interpreter(self, spoilt_box: Box) -> None:
        script = spoilt_box.rootfs / "script"
        script.write_text("#!/absent\n")
        script.chmod(0o755)
        with pytest.raises(CommandNotStarted) as caught:
            spoilt_box.run(spoilt_box.spec("/script"))
        assert caught.value.status == 127

    def test_failed_start_leaves_nothing(self, box: Box) -> None:
        spec = box.spec("true")
        with pytest.raises(KernelError) as caught:
            box.run(replace(spec, mounts=(*spec.mounts, Mount("/x", "bind", "/absent/source", ("bind",)))))
        assert (caught.value.syscall, caught.value.path) == ("open_tree", "/absent/source")
        assert state.live(box.root) == state.stale(box.root) == ()

    def test_limit_that_cannot_be_set_is_an_error(self, box: Box) -> None:
        spec = replace(box.spec("true"), resources=Resources(cpuset_cpus="4096"))
        with pytest.raises(NotPermitted, match=r"cannot set cpuset\.cpus to 4096"):
            box.run(spec)

    def test_user_namespaces_are_refused(self, box: Box) -> None:
        from runner.runtime.spec import IdMapping

        with pytest.raises(TierceError, match="a user namespace and mappings"):
            box.run(replace(box.spec("true"), uid_mappings=(IdMapping(0, 0, 1),)))


class TestMany:
    def test_twenty_at_once_from_threads(self, box: Box) -> None:
        codes: dict[int, int] = {}

        def one(number: int) -> None:
            codes[number] = box.sh(f"exit {number}").code

        threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == {number: number for number in range(20)}

    def test_outlives_the_thread_that_started_it(self, box: Box) -> None:
        held = []

        def begin() -> None:
            context = box.started(box.spec("sh", "-c", "sleep 0.3; exit 9"))
            held.append((context, context.__enter__()))

        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
        context, container = held[0]
        assert container.wait() == 9
        context.__exit__(None, None, None)


_HOLDER = """
import sys
from pathlib import Path
from tests.support.boxes import Box
from runner.runtime.privileges import probe
from runner.network.modes import NetworkMode
box = Box(Path(sys.argv[1]), Path(sys.argv[2]), probe())
with box.started(box.spec("sh", "-c", "sleep 1000 & sleep 1000"), network=NetworkMode(sys.argv[3])) as container:
    print(container.pid, flush=True)
    container.wait()
"""


class TestKilledLauncher:
    @pytest.mark.parametrize("network", ["none", "bridge"])
    def test_nothing_survives_kill_9(self, box: Box, network: str) -> None:
        command = [sys.executable, "-c", _HOLDER, str(box.rootfs), str(box.root), network]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as launcher:
            assert launcher.stdout is not None
            pid = int(launcher.stdout.readline())
            namespace = os.readlink(f"/proc/{pid}/ns/pid")
            assert _members(namespace)
            launcher.kill()
        assert eventually(lambda: not _members(namespace))
        assert eventually(lambda: state.live(box.root) == ())
        assert len(state.stale(box.root)) == 1
        assert box.sh("true").code == 0  # the next command sweeps
        assert state.stale(box.root) == ()
        if network == "bridge":
            from runner.network import link
            from runner.network.bridge import bridge_name

            with state.locked(box.root):  # it is held until the bridge has gone
                assert link.link_index(bridge_name(box.root)) is None


def _members(namespace: str) -> list[str]:
    """Processes in a pid namespace. One that is only waited for has none any more."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.readlink(f"/proc/{name}/ns/pid") == namespace:
                    found.append(name)
            except OSError:
                continue
    return found


class TestOverlay:
    def test_128_layers(self, box: Box, tmp_path: Path) -> None:
        from store.layers import OverlayMount

        base = tmp_path / "overlay2"
        names = [f"l/{number:026X}" for number in range(128)]
        for number, name in enumerate(names):
            (base / name).mkdir(parents=True)
            (base / name / "top").write_text(str(number))
        (base / "l/rootfs").symlink_to(box.rootfs)
        for name in ("diff", "work", "merged"):
            (base / name).mkdir()
        mount = OverlayMount(base, (*names[:127], "l/rootfs"), "diff", "work", "merged")
        overlaid = Box(mount, box.root, box.privileges)  # type: ignore[arg-type]
        assert overlaid.sh("cat /top; echo new > /new").out == "0"
        assert (base / "diff/new").read_text() == "new\n"
        assert list((base / "merged").iterdir()) == []


def test_a_process_without_rights_is_told_what_it_lacks(box: Box, privileges: Privileges) -> None:
    weak = replace(privileges, uid=1000, capabilities=0)
    with pytest.raises(NotPermitted, match="CAP_SYS_ADMIN"):
        Box(box.rootfs, box.root, weak).run(box.spec("true"))


def test_terminal(box: Box) -> None:
    spec: Spec = box.spec("sh", "-c", "tty; stty size; read answer; stty size; test -c /dev/console", terminal=True)
    spec = replace(spec, process=replace(spec.process, console_size=(33, 77)))
    with box.started(spec) as container:
        assert container.console is not None
        seen = b""
        while b"33 77" not in seen:
            seen += os.read(container.console, 1000)
        container.resize(20, 50)
        os.write(container.console, b"go\n")
        while b"20 50" not in seen:
            seen += os.read(container.console, 1000)
        assert b"/dev/pts/0" in seen
        assert container.wait() == 0


def test_ambient_capabilities_of_a_bundle(box: Box) -> None:
    names = ("CAP_NET_RAW",)
    spec = box.spec("grep", "CapAmb", "/proc/self/status", user="alice")
    sets = Capabilities(*(names,) * 5)
    assert box.run(replace(spec, process=replace(spec.process, capabilities=sets))).out.split()[1] == f"{1 << 13:016x}"
