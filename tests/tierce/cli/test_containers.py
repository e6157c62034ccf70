"""Containers that outlive their command: their life, logs, exit codes, restarts, health, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from store.locks import is_held
from tests.support.cli import Tierce
from tests.support.waiting import until

pytestmark = pytest.mark.root
DETACHED = ("run", "-d", "--network", "none")


def status(box: Tierce, name: str) -> str:
    return box("ps", "-a", "--filter", f"name={name}", "--format", "{{.State}}").stdout.strip()


def monitor_of(box: Tierce, container_id: str) -> int:
    """The pid of the process that watches this container."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if container_id.encode() in words and str(box.root).encode() in words:
                return int(entry.name)
    raise AssertionError(f"no monitor of {container_id}")


def test_a_life(box: Tierce) -> None:
    created = box(
        "create", "--name", "web", "--network", "none", "busybox", "sh", "-c", "echo hi; exec sleep 60"
    ).stdout
    assert status(box, "web") == "created"
    assert box("ps", "-q").stdout == ""
    assert box("start", "web").stdout == "web\n"
    assert status(box, "web") == "running"
    assert box("ps", "-q", "--no-trunc").stdout == created
    assert box("kill", created[:8]).stdout == created[:8] + "\n"
    assert box("wait", "web").stdout == "137\n"
    assert "Exited (137)" in box("ps", "-a").stdout
    assert box("start", "web").stdout == "web\n"
    until(lambda: box("logs", "web").stdout == "hi\nhi\n")
    assert "is running" in box.attempt("rm", "web").stderr
    box("rename", "web", "other")
    box("rm", "-f", "other")
    assert box("ps", "-aq").stdout == ""
    assert os.listdir(box.root / "containers") == []
    assert "no problems" in box("system", "check").stdout or box("system", "check").code == 0


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (("busybox", "absent"), 127, "executable file not found"),
        (("busybox", "/etc"), 126, "is a directory"),
        (("--user", "nobody-here", "busybox", "true"), 125, "unable to find user"),
        (("--restart", "sometimes", "busybox"), 125, "invalid restart policy"),
        (("--restart", "always", "--rm", "busybox"), 125, "conflicting options: --rm and --restart"),
        (("--log-driver", "syslog", "busybox"), 125, "log driver 'syslog' is not supported"),
        (("--log-opt", "max-size=lots", "busybox"), 125, "invalid log opt"),
        (("--stop-signal", "NOISE", "busybox"), 125, "invalid signal: NOISE"),
        (("--name", "-x", "busybox"), 125, "invalid container name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_can_not_be_started(argv: tuple[str, ...], code: int, error: str, box: Tierce) -> None:
    for how in ((), ("-d",)):
        done = box.attempt("run", *how, "--network", "none", *argv)
        assert done.code == code, str(done)
        assert error in done.stderr
        assert done.stderr.count("\n") == 1
    assert box("ps", "-q").stdout == ""


@pytest.mark.parametrize("how", [(), ("--rm",)], ids=["kept", "rm"])
def test_failed_starts_with_rm_leave_nothing(how: tuple[str, ...], box: Tierce) -> None:
    assert box.attempt("run", "-d", *how, "--network", "none", "busybox", "absent").code == 127
    assert len(box("ps", "-aq").stdout.split()) == (0 if how else 1)


def test_the_foreground_keeps_the_container_and_its_code(box: Tierce) -> None:
    done = box.attempt(
        "run", "--network", "none", "--name", "fg", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"
    )
    assert (done.stdout, done.stderr, done.code) == ("out\n", "err\n", 3)
    assert box("logs", "fg").stdout == "out\n"
    assert box("logs", "fg").stderr == "err\n"
    seen = box("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.Name}} {{.Config.Image}}", "fg")
    assert seen.stdout == "exited 3 /fg busybox\n"
    again = box.attempt("start", "-a", "fg")
    assert (again.stdout, again.code) == ("out\n", 3)


def test_input_reaches_a_watched_container_and_ends(box: Tierce) -> None:
    assert box("run", "-i", "--network", "none", "busybox", "cat", stdin="one\ntwo\n").stdout == "one\ntwo\n"


def test_rm_removes_anonymous_volumes_and_keeps_the_exit_code(box: Tierce) -> None:
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    name = box(*DETACHED, "--rm", "-v", "/data", "busybox", "sh", "-c", script).stdout.strip()
    until(lambda: box("logs", name).stdout == "ready\n")
    assert len(box("volume", "ls", "-q").stdout.split()) == 1
    with box.start("wait", name) as waiting:
        time.sleep(0.5)
        box("kill", "-s", "TERM", name)
        assert waiting.communicate(timeout=30)[0] == "9\n"
    until(lambda: box("ps", "-aq").stdout == "")
    assert box("volume", "ls", "-q").stdout == ""


def test_anonymous_volumes_outlive_a_restart_and_go_with_rm_v(box: Tierce) -> None:
    script = "cat /data/x; date > /data/x; exec sleep 60"
    box(*DETACHED, "--name", "vv", "-v", "/data", "busybox", "sh", "-c", script)
    box("restart", "-t", "0", "vv")
    until(lambda: box("logs", "vv").stdout != "")
    box("rm", "-f", "vv")
    assert len(box("volume", "ls", "-q").stdout.split()) == 1
    box("volume", "prune", "-f", "-a")


def test_one_name_is_one_container(box: Tierce) -> None:
    argv = box.argv(*DETACHED, "--name", "same", "busybox", "sleep", "60")
    racers = [
        subprocess.Popen(argv, env=box.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [racer.communicate(timeout=60) for racer in racers]
    assert sorted(racer.returncode for racer in racers) == [0, 125, 125, 125]
    assert sum('the container name "/same" is already in use' in stderr for _, stderr in said) == 3
    assert len(box("ps", "-aq").stdout.split()) == 1


def test_stop_gives_a_trap_its_say(box: Tierce) -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    box(*DETACHED, "--name", "polite", "busybox", "sh", "-c", script)
    until(lambda: box("logs", "polite").stdout == "ready\n")
    box("stop", "polite")
    assert box("wait", "polite").stdout == "7\n"
    box(*DETACHED, "--name", "deaf", "--stop-timeout", "0", "busybox", "sleep", "60")
    box("stop", "deaf")
    assert box("wait", "deaf").stdout == "137\n"


def test_exec(box: Tierce) -> None:
    box(*DETACHED, "--name", "xx", "-e", "A=1", "-w", "/tmp", "busybox", "sleep", "60")
    assert box("exec", "-e", "B=2", "xx", "sh", "-c", "echo $A$B $PWD").stdout == "12 /tmp\n"
    assert box("exec", "-u", "7:8", "-w", "/etc", "xx", "sh", "-c", "id -u; pwd").stdout == "7\n/etc\n"
    assert box.attempt("exec", "xx", "sh", "-c", "exit 5").code == 5
    assert box.attempt("exec", "xx", "absent").code == 127
    assert box.attempt("exec", "xx", "/etc").code == 126
    assert box("exec", "-i", "xx", "cat", stdin="in").stdout == "in"
    box("exec", "-d", "xx", "sh", "-c", "echo later > /tmp/file")
    until(lambda: box.attempt("exec", "xx", "cat", "/tmp/file").stdout == "later\n")
    os.waitpid(-1, os.WNOHANG)  # the tests' process adopts what the background command leaves, as init does
    box("kill", "xx")
    stopped = box.attempt("exec", "xx", "true")
    assert (stopped.code, "is not running" in stopped.stderr) == (1, True)


def test_logs(box: Tierce) -> None:
    box(
        "run",
        "--network",
        "none",
        "--name",
        "ll",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3; do echo $i; sleep 0.3; done; printf end",
    )
    assert box("logs", "ll").stdout == "1\n2\n3\nend"
    assert box("logs", "--tail", "2", "ll").stdout == "3\nend"
    assert box("logs", "--tail", "0", "ll").stdout == ""
    lines = [line.partition(" ") for line in box("logs", "-t", "ll").stdout.splitlines()]
    assert [text for _, _, text in lines] == ["1", "2", "3", "end"]
    assert box("logs", "--since", lines[1][0], "ll").stdout == "2\n3\nend"
    assert box("logs", "--until", lines[1][0], "ll").stdout == "1\n2\n"
    (log,) = (box.root / "containers").glob("*/*-json.log")
    assert set(json.loads(log.read_text().splitlines()[0])) == {"log", "stream", "time"}
    assert log.stat().st_mode & 0o777 == 0o640


def test_following_ends_with_the_container(box: Tierce) -> None:
    box(*DETACHED, "--name", "ff", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done")
    assert box("logs", "-f", "ff", timeout_s=30).stdout == "1\n2\n3\n"


def test_following_survives_rotation(box: Tierce) -> None:
    options = ("--log-opt", "max-size=20k", "--log-opt", "max-file=3")
    box(
        *DETACHED,
        "--name",
        "rr",
        *options,
        "busybox",
        "sh",
        "-c",
        "sleep 1; for i in $(seq 600); do echo $i; usleep 500; done",
    )
    assert box("logs", "-f", "rr", timeout_s=30).stdout == "".join(f"{number}\n" for number in range(1, 601))
    files = sorted(path.name for path in (box.root / "containers").glob("*/*-json.log*"))
    assert len(files) > 1


def test_a_long_line_is_whole_again(box: Tierce) -> None:
    box(
        "run",
        "--network",
        "none",
        "--name",
        "long",
        "busybox",
        "sh",
        "-c",
        "head -c 40000 /dev/zero | tr '\\0' x; echo; echo é",
    )
    assert box("logs", "long").stdout == "x" * 40000 + "\né\n"
    assert box("logs", "--tail", "2", "long").stdout == "x" * 40000 + "\né\n"


def test_much_output_and_a_slow_reader(box: Tierce) -> None:
    argv = box.argv(
        "run", "--network", "none", "--name", "much", "busybox", "sh", "-c", "yes 0123456789abcdef | head -c 20000000"
    )
    with subprocess.Popen(argv, env=box.env(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        time.sleep(1)
        whole = process.stdout.read()
    assert process.returncode == 0
    assert len(whole) == 20_000_000
    assert len(box("logs", "much").stdout) == 20_000_000


def test_restart_on_failure_counts(box: Tierce) -> None:
    box(*DETACHED, "--name", "again", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo go; exit 4")
    until(lambda: status(box, "again") == "exited")
    assert box("logs", "again").stdout == "go\n" * 3
    box(*DETACHED, "--name", "fine", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo go")
    until(lambda: status(box, "fine") == "exited")
    assert box("logs", "fine").stdout == "go\n"


def test_exec_between_two_starts(box: Tierce) -> None:
    box(*DETACHED, "--name", "between", "--restart", "always", "busybox", "false")
    until(lambda: "is restarting, wait until it is running" in box.attempt("exec", "between", "true").stderr)


@pytest.mark.parametrize("how", [("stop",), ("kill",), ("rm", "-f")], ids=lambda how: how[0])
def test_what_always_restarts_ends_when_it_is_told(box: Tierce, how: tuple[str, ...]) -> None:
    """Whether it runs just then, has just ended or waits: it lives for less than a command takes."""
    for number in range(4):
        name = f"again{number}"
        box(*DETACHED, "--name", name, "--restart", "always", "busybox", "sleep", f"0.0{number * 3}")
        done = box.attempt(*how, name)
        if how == ("kill",) and done.code:
            assert "is not running" in done.stderr
            box("stop", name)
        box("rm", "-fv", name)
        assert box("ps", "-aq", "--filter", f"name={name}").stdout == ""


def test_a_manual_stop_is_the_end(box: Tierce) -> None:
    box(*DETACHED, "--name", "always", "--restart", "always", "busybox", "sh", "-c", "echo go; sleep 0.05")
    until(lambda: box("logs", "always").stdout.count("go") >= 3)
    box("stop", "-t", "1", "always")
    assert status(box, "always") == "exited"


def test_health(box: Tierce) -> None:
    check = ("--health-cmd", "test -f /tmp/well", "--health-interval", "200ms", "--health-retries", "2")
    box(*DETACHED, "--name", "hh", *check, "busybox", "sleep", "60")
    assert "(health: starting)" in box("ps").stdout
    until(lambda: "(unhealthy)" in box("ps").stdout)
    box("exec", "hh", "touch", "/tmp/well")
    until(lambda: "(healthy)" in box("ps").stdout)
    assert box("ps", "-q", "--filter", "health=healthy").stdout != ""


def test_pause(box: Tierce) -> None:
    box(*DETACHED, "--name", "pp", "busybox", "sh", "-c", "while :; do echo x; usleep 20000; done")
    box("pause", "pp")
    assert status(box, "pp") == "paused"
    before = box("logs", "pp").stdout
    time.sleep(0.3)
    assert box("logs", "pp").stdout == before
    assert "is paused" in box.attempt("exec", "pp", "true").stderr
    box("unpause", "pp")
    until(lambda: box("logs", "pp").stdout != before)
    box("pause", "pp")
    box("stop", "-t", "0", "pp")
    assert status(box, "pp") == "exited"


@pytest.mark.parametrize("moment_s", [0.0, 0.1, 0.3], ids=["at once", "early", "later"])
def test_a_killed_monitor_is_never_running(moment_s: float, box: Tierce) -> None:
    container = box(*DETACHED, "--name", "kk", "busybox", "sh", "-c", "echo first; exec sleep 1000").stdout.strip()
    until(lambda: box("logs", "kk").stdout == "first\n")
    time.sleep(moment_s)
    os.kill(monitor_of(box, container), signal.SIGKILL)
    assert box("wait", "kk").stdout == "137\n"
    assert status(box, "kk") == "exited"
    assert box("logs", "kk").stdout == "first\n"
    assert box("start", "kk").stdout == "kk\n"
    assert status(box, "kk") == "running"


def test_a_reboot_ends_it(box: Tierce) -> None:
    """What a reboot takes: every process, and the runtime directory."""
    container = box(*DETACHED, "--name", "boot", "busybox", "sh", "-c", "echo up; exec sleep 1000").stdout.strip()
    until(lambda: box("logs", "boot").stdout == "up\n")
    os.kill(monitor_of(box, container), signal.SIGKILL)
    until(lambda: not is_held(box.root / "containers" / container / "monitor"))
    shutil.rmtree(box.env()["TIERCE_RUNTIME_DIR"])
    assert box("ps", "-a", "--format", "{{.State}}").stdout == "exited\n"
    box("start", "boot")
    assert status(box, "boot") == "running"


@pytest.mark.parametrize("delay_s", [0.05, 0.1, 0.15, 0.2, 0.3], ids=str)
def test_a_command_killed_at_any_instant_leaves_a_true_state(delay_s: float, box: Tierce) -> None:
    process = subprocess.Popen(
        box.argv(*DETACHED, "--name", "zz", "busybox", "sleep", "60"), env=box.env(), stdout=subprocess.DEVNULL
    )
    time.sleep(delay_s)
    process.kill()
    process.wait()
    until(lambda: status(box, "zz") in ("", "created", "running"))
    found = status(box, "zz")
    if found:
        box("rm", "-f", "zz")
    box(*DETACHED, "--name", "zz", "busybox", "sleep", "60")
    assert status(box, "zz") == "running"


def test_detach_keys_leave_it_running(box: Tierce) -> None:
    leader, follower = os.openpty()
    argv = box.argv(
        "run", "-it", "--network", "none", "--name", "dd", "busybox", "sh", "-c", "echo ready; exec sleep 60"
    )
    with subprocess.Popen(argv, stdin=follower, stdout=follower, stderr=follower, env=box.env()) as process:
        os.close(follower)
        seen = b""
        while b"ready" not in seen:
            seen += os.read(leader, 1000)
        os.write(leader, b"\x10\x11")
        assert process.wait(timeout=20) == 0
    os.close(leader)
    assert status(box, "dd") == "running"


def test_a_killed_client_leaves_it_running(box: Tierce) -> None:
    argv = box.argv("run", "--network", "none", "--name", "cc", "busybox", "sh", "-c", "echo ready; exec sleep 60")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=box.env()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    assert status(box, "cc") == "running"


def test_filters_and_formats(box: Tierce) -> None:
    box("create", "--name", "one", "-l", "app=web", "--network", "none", "busybox")
    box("create", "--name", "two", "--network", "none", "-p", "80-81:80-81", "--expose", "90/udp", "busybox", "true")
    listed = ("ps", "-a", "--format", "{{.Names}}", "--filter")
    assert box(*listed, "label=app=web").stdout == "one\n"
    assert box(*listed, "ancestor=busybox").stdout.split() == ["two", "one"]
    assert box(*listed, "since=one").stdout == "two\n"
    assert box(*listed, "before=two").stdout == "one\n"
    assert box(*listed, "status=running").stdout == ""
    assert box(*listed, "publish=81").stdout == box(*listed, "expose=90/udp").stdout == "two\n"
    assert box(*listed, "publish=90/udp").stdout == box(*listed, "expose=91").stdout == ""
    assert "is using it" in box.attempt("rmi", "-f", "busybox").stderr
    assert "Deleted Containers" in box("container", "prune", "-f").stdout
    assert box("ps", "-aq").stdout == ""


def test_published_ports_are_listed_and_free_again(box: Tierce) -> None:
    box("run", "-d", "--name", "port", "-p", "127.0.0.1:18473:80", "busybox", "sleep", "60")
    assert box("port", "port").stdout == "80/tcp -> 127.0.0.1:18473\n"
    assert box("port", "port", "80").stdout == "127.0.0.1:18473\n"
    assert box.attempt("port", "port", "81").code == 1
    clash = box.attempt("run", "-d", "--name", "clash", "-p", "127.0.0.1:18473:80", "busybox", "true")
    assert (clash.code, status(box, "clash")) == (125, "created")
    box("stop", "-t", "0", "port")
    assert box("start", "clash").stdout == "clash\n"


def test_a_prune_spares_the_image_of_a_container(box: Tierce) -> None:
    box("create", "--name", "cc", "busybox", "true")
    box("image", "prune", "-a", "-f")
    assert box("images", "--format", "{{.Repository}}").stdout == "busybox\n"
    box("rm", "cc")
    box("image", "prune", "-a", "-f")
    assert box("images", "-q").stdout == ""


@pytest.mark.parametrize("delay_s", [0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.2, 0.3], ids=str)
def test_an_attended_container_goes_with_its_killed_command(delay_s: float, box: Tierce) -> None:
    """Also between its record and its start, when nobody has seen it run."""
    process = box.start("run", "--rm", "--network", "none", "-v", "data:/d", "busybox", "sleep", "60")
    time.sleep(delay_s)
    process.kill()
    process.communicate()
    assert box("ps", "-aq").stdout == ""
    assert box("volume", "prune", "-a", "-f").stderr == ""
    assert box("volume", "ls", "-q").stdout == ""
    until(lambda: box("ps", "-aq").code == 0 and not any(Path("/sys/fs/cgroup").glob("*/tierce/*/")))


def test_chosen_by_what_they_are(box: Tierce) -> None:
    """podman's --all, --filter and --latest in place of names."""
    script = "echo $0; trap 'exit 3' TERM; while :; do sleep 0.05; done"

    def names(*flags: str) -> list[str]:
        return sorted(box("ps", "-a", "--format", "{{.Names}}", *flags).stdout.split())

    ids = [
        box(*DETACHED, "--name", name, "--label", f"app={name}", "busybox", "sh", "-c", script, name).stdout.strip()
        for name in ("aa", "bb", "cc")
    ]
    until(lambda: box("logs", "-l").stdout == "cc\n")
    assert box("pause", "--all").stdout.split() == ids[::-1]
    assert box("unpause", "--filter", "label=app=bb").stdout.split() == [ids[1]]
    assert box("unpause", "-a").stdout.split() == [ids[2], ids[0]]
    assert box("exec", "-l", "hostname").stdout.strip() == ids[2][:12]
    assert box("inspect", "-l", "-f", "{{.Name}}").stdout == "/cc\n"
    assert "while :" in box("top", "-l", "-o", "pid,args").stdout
    assert box("stop", "-f", "name=a").stdout.split() == [ids[0]]
    assert names("--filter", "status=exited") == ["aa"]
    assert box("restart", "-t", "1", "--running").stdout.split() == [ids[2], ids[1]]
    assert box("stop", "--latest").stdout.split() == [ids[2]]
    assert box("wait", "-l").stdout == "3\n"
    assert box("diff", "-l").stdout == ""
    assert box("kill", "-a").stdout.split() == [ids[1]]
    box("wait", "bb")
    assert sorted(box("start", "--all").stdout.split()) == sorted(ids)
    assert box("stop", "-t", "1", "--all").stdout.split() == ids[::-1]
    assert box("rm", "--filter", "label=app=cc").stdout.split() == [ids[2]]
    assert box("rm", "-a").stdout.split() == [ids[1], ids[0]]
    assert names() == []
    for words in (("stop", "-a"), ("rm", "-fa"), ("start", "--filter", "name=a")):
        assert box(*words).stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("stop",), 1, "missing argument 'CONTAINER [CONTAINER...]'"),
        (("stop", "-a", "xx"), 125, "--all chooses the containers: name none"),
        (("rm", "--all", "--latest"), 125, "--all and --latest exclude each other"),
        (("kill", "--filter", "nonsense=1"), 1, "filter 'nonsense' is not known"),
        (("wait", "--latest"), 1, "no such container: there is none"),
        (("logs",), 1, "missing argument 'CONTAINER'"),
        (("logs", "-l", "xx"), 125, "--latest chooses the container: name none"),
        (("exec", "-l"), 1, "missing argument 'COMMAND [ARG...]'"),
        (("exec",), 1, "missing argument 'CONTAINER'"),
        (("exec", "xx"), 1, "missing argument 'COMMAND [ARG...]'"),
        (("inspect",), 1, "missing argument 'IMAGE [IMAGE...]'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_choice_that_cannot_be_made(words: tuple[str, ...], code: int, message: str, tierce: Tierce) -> None:
    refused = tierce.attempt(*words)
    assert message in refused.stderr
    assert refused.code == code
