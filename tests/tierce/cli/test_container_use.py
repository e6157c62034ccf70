"""``top``, ``stats``, ``update``, ``--init`` and sizes: what containers use and may use, on real containers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from runner.containers.limits import Limits
from runner.containers.updating import merged
from tests.support.cli import Tierce
from tests.support.waiting import until

DETACHED = ("run", "-d", "--network", "none")


def started(box: Tierce, script: str, *options: str, name: str = "web") -> str:
    """Runs once ``script`` has said so."""
    container_id = box(*DETACHED, "--name", name, *options, "busybox", "sh", "-c", script).stdout.strip()
    until(lambda: "ready" in box("logs", name).stdout)
    return container_id


# --- top ------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("options", [(), ("--pid", "host"), ("--privileged",)], ids=["own", "host", "privileged"])
def test_top_lists_the_containers_processes_alone(options: tuple[str, ...], box: Tierce) -> None:
    started(box, "sleep 601 & echo ready; exec sleep 602", *options)
    header, *lines = box("top", "web").stdout.splitlines()
    assert header.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert sorted(line.split(None, 7)[7] for line in lines) == ["sleep 601", "sleep 602"]
    assert box("container", "top", "web", "-eo", "pid,comm").stdout.split()[2::2] == [line.split()[1] for line in lines]


@pytest.mark.root
def test_a_container_among_the_hosts_processes_is_paused_alone(box: Tierce) -> None:
    started(box, "echo ready; exec sleep 600", "--pid", "host")
    box("pause", "web")
    assert box("ps", "--format", "{{.Status}}").stdout.endswith("(Paused)\n")  # by a process that goes on
    box("unpause", "web")


@pytest.mark.root
@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("absent",), "no such container: absent"),
        (("stopped",), "container stopped is not running"),
        (("web", "-o", "comm"), "cannot find the column PID in what ps prints"),
        (("web", "--nonsense"), "ps --nonsense: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_top_mistakes_are_one_line(argv: tuple[str, ...], error: str, box: Tierce) -> None:
    started(box, "echo ready; exec sleep 600")
    box("create", "--name", "stopped", "busybox")
    done = box.attempt("top", *argv)
    assert (done.code, done.stderr.count("\n")) == (1, 1)
    assert error in done.stderr


# --- stats ----------------------------------------------------------------------------------


def percent(text: str) -> float:
    return float(text.removesuffix("%"))


@pytest.mark.root
@pytest.mark.parametrize("limited", [False, True], ids=["no groups", "groups"])
def test_stats_tell_what_is_used(limited: bool, box: Tierce) -> None:
    """Of a container that keeps a processor busy and holds 20 MB, whether control groups count or not."""
    hold = "head -c 20000000 /dev/zero | tail -c 20000000 | { sleep 1; echo ready; sleep 600; } & while :; do :; done"
    flags = ("-m", "256m", "--pids-limit", "50", "--cpus", "1") if limited else ()
    container_id = started(box, hold, *flags)
    box("create", "--name", "idle", "busybox")
    rows = [json.loads(line) for line in box("stats", "--no-stream", "-a", "--format", "json").stdout.splitlines()]
    found = {row["Name"]: row for row in rows}
    assert found["web"]["ID"] == container_id[:12]
    assert 0.5 < percent(found["web"]["CPUPerc"]) < 250
    used, limit = re.fullmatch(r"([\d.]+)MiB / (.+)", found["web"]["MemUsage"]).groups()  # type: ignore[union-attr]  # else it fails
    assert 15 < float(used) < 200
    assert (limit == "256MiB") is limited
    assert int(found["web"]["PIDs"]) >= 3
    assert found["web"]["NetIO"] == "0B / 0B"
    assert (found["idle"]["CPUPerc"], found["idle"]["MemUsage"]) == ("--", "-- / --")
    table = box("stats", "--no-stream").stdout
    assert table.split("\n")[0].split("  ")[0] == "CONTAINER ID"
    assert "idle" not in table


@pytest.mark.root
def test_stats_go_on_until_they_are_ended(box: Tierce) -> None:
    started(box, "echo ready; exec sleep 600")
    with box.foreground("stats", "--format", "{{.Name}}") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["web\n", "web\n"]


@pytest.mark.root
def test_stats_of_an_absent_container(box: Tierce) -> None:
    done = box.attempt("stats", "--no-stream", "absent")
    assert (done.code, done.stderr) == (1, "tierce: no such container: absent\n")


# --- update ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (Limits(memory=1), Limits(cpus=2.0), Limits(memory=1, cpus=2.0)),
        (Limits(memory=1), Limits(memory=2), Limits(memory=2)),
        (Limits(memory=1), Limits(memory=0), Limits(memory=1)),
        (Limits(pids_limit=3), Limits(pids_limit=0), Limits(pids_limit=-1)),
        (Limits(pids_limit=3), Limits(pids_limit=-1), Limits(pids_limit=-1)),
        (Limits(cpus=1.0), Limits(cpus=0.0), Limits(cpu_quota_us=-1)),
        (Limits(cpuset_cpus="0"), Limits(), Limits(cpuset_cpus="0")),
    ],
    ids=["one more", "another", "zero is as it was", "no processes", "any processes", "any processors", "nothing"],
)
def test_merged_limits(old: Limits, new: Limits, expected: Limits) -> None:
    assert merged(old, new) == expected


def group_file(container_id: str, name: str) -> str:
    """What the container's control group says, in the hierarchy that has the file."""
    found = [path for top in ("*/", "") for path in Path("/sys/fs/cgroup").glob(f"{top}tierce/{container_id}/{name}")]
    return found[0].read_text().strip()


def memory_limit(container_id: str) -> int:
    name = "memory.max" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "memory.limit_in_bytes"
    return int(group_file(container_id, name))


@pytest.mark.root
@pytest.mark.parametrize("limited", [False, True], ids=["no groups", "groups"])
def test_update_limits_what_runs_and_what_starts_again(limited: bool, box: Tierce) -> None:
    flags = ("-m", "128m", "--pids-limit", "30") if limited else ()
    container_id = started(box, "sleep 600 & echo ready; wait", *flags)
    assert box("update", "-m", "64m", "--pids-limit", "9", "web").stdout == "web\n"
    assert (memory_limit(container_id), group_file(container_id, "pids.max")) == (64 << 20, "9")
    assert int(group_file(container_id, "pids.current")) == 2
    many = "for i in 1 2 3 4 5 6 7 8 9; do sleep 600 > /dev/null 2>&1 & done"
    assert "can't fork" in box.attempt("exec", "web", "sh", "-c", many).stderr
    box("restart", "-t", "0", "web")
    assert (memory_limit(container_id), group_file(container_id, "pids.max")) == (64 << 20, "9")
    box("update", "-m", "96m", "--pids-limit", "-1", "web")
    assert (memory_limit(container_id), group_file(container_id, "pids.max")) == (96 << 20, "max")


@pytest.mark.root
def test_update_of_a_stopped_container_holds_at_its_start(box: Tierce) -> None:
    container_id = box("create", "--name", "web", "--network", "none", "busybox", "sleep", "600").stdout.strip()
    box("update", "--memory", "64m", "web")
    box("start", "web")
    assert memory_limit(container_id) == 64 << 20


@pytest.mark.root
def test_a_memory_limit_that_came_later_is_told_from_other_ends(box: Tierce) -> None:
    script = "echo ready; until [ -e /go ]; do sleep 0.05; done; exec tail -c 50000000 /dev/zero"
    started(box, script)
    box("update", "-m", "16m", "--memory-swap", "16m", "web")
    box("exec", "web", "touch", "/go")
    assert box("wait", "web").stdout == "137\n"
    assert box("inspect", "-f", "{{.State.OOMKilled}}", "web").stdout == "true\n"


@pytest.mark.root
def test_a_foreground_container_is_updated_and_leaves_no_group(box: Tierce) -> None:
    with box.start("run", "--rm", "--name", "web", "--network", "none", "busybox", "sleep", "600") as process:
        until(lambda: box("ps", "-q").stdout != "")
        box("update", "-m", "64m", "web")
        box("kill", "web")
        assert process.wait(timeout=30) == 137  # the fixture looks for groups


@pytest.mark.root
def test_a_restart_policy_reaches_a_container_that_runs(box: Tierce) -> None:
    started(box, "echo ready; until [ -e /go ]; do sleep 0.05; done; rm /go; exit 3")
    box("update", "--restart", "on-failure:5", "web")
    assert box("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "web").stdout == "on-failure\n"
    box("exec", "web", "touch", "/go")
    until(lambda: box("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "web").stdout == "1 running\n")
    box("update", "--restart", "no", "web")
    box("exec", "web", "touch", "/go")
    until(lambda: box("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "web").stdout == "1 exited\n")
    assert box("wait", "web").stdout == "3\n"


@pytest.mark.root
@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("web",), "nothing to update"),
        (("-m", "1m", "web"), "memory limit of 1048576 bytes is too small"),
        (("--cpus", "10000", "web"), "invalid --cpus"),
        (("--cpu-quota", "50000", "web"), "conflicting options: --cpus and --cpu-period or --cpu-quota"),
        (("--restart", "sometimes", "web"), "invalid restart policy 'sometimes'"),
        (("-m", "64m", "absent"), "no such container: absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_update_mistakes_change_nothing(argv: tuple[str, ...], error: str, box: Tierce) -> None:
    box("create", "--name", "web", "--cpus", "0.5", "busybox")
    before = box("inspect", "web").stdout
    done = box.attempt("update", *argv)
    assert (done.code, done.stderr.count("\n")) == (1, 1)
    assert error in done.stderr
    assert box("inspect", "web").stdout == before


# --- init -----------------------------------------------------------------------------------


@pytest.mark.root
def test_init_reaps_orphans(box: Tierce) -> None:
    still_a_shell = "read -r name < /proc/$$/comm && [ $name = sh ]"  # which would reap them itself
    orphans = f"for i in 1 2 3; do (while {still_a_shell}; do :; done &); done; echo ready; exec sleep 600"
    states = "cat /proc/[0-9]*/stat | grep -c ' Z '"
    started(box, orphans, name="without")
    started(box, orphans, "--init", name="with")
    until(lambda: box.attempt("exec", "without", "sh", "-c", states).stdout == "3\n")
    until(lambda: box.attempt("exec", "with", "sh", "-c", states).stdout == "0\n")
    assert box("exec", "with", "cat", "/proc/1/comm", "/proc/2/comm").stdout == "tierce-init\nsleep\n"
    assert box("exec", "with", "sh", "-c", "ls /proc/1/fd | wc -l").stdout == "3\n"


@pytest.mark.root
@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 7", 7), ("kill -9 $$", 137), ("sleep 600 & exit 0", 0), ("exec /absent", 127)],
)
def test_init_ends_with_the_programs_code(script: str, code: int, box: Tierce) -> None:
    assert box.attempt("run", "--rm", "--init", "--network", "none", "busybox", "sh", "-c", script).code == code
    assert box.attempt("run", "--rm", "--init", "--network", "none", "busybox", "absent").code == 127


@pytest.mark.root
def test_init_passes_signals_on(box: Tierce) -> None:
    """A program that has no handler ends by TERM, which it would ignore as pid 1."""
    started(box, "echo ready; exec sleep 600", "--init")
    box("stop", "web")
    assert box("wait", "web").stdout == "143\n"
    started(box, "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done", "--init", name="trap")
    box("kill", "-s", "USR1", "trap")
    assert box("wait", "trap").stdout == "5\n"
    assert "got\n" in box("logs", "trap").stdout


@pytest.mark.root
def test_init_and_a_terminal(box: Tierce) -> None:
    """The program is in the terminal's foreground, so that Ctrl-C reaches it."""
    box(
        *DETACHED,
        "-t",
        "--init",
        "--name",
        "tty",
        "busybox",
        "sh",
        "-c",
        "cut -d' ' -f1,5,8 /proc/self/stat; sleep 600",
    )
    until(lambda: box("logs", "tty").stdout != "")
    pid, group, foreground = box("logs", "tty").stdout.split()
    assert (group, foreground) == ("2", "2")
    assert int(pid) > 1


# --- sizes ----------------------------------------------------------------------------------


@pytest.mark.root
def test_ps_counts_sizes_when_asked(box: Tierce) -> None:
    box("run", "--name", "web", "--network", "none", "busybox", "sh", "-c", "head -c 1234567 /dev/zero > /file")
    assert re.search(r"1\.23MB \(virtual [\d.]+MB\)$", box("ps", "-as").stdout.splitlines()[1])
    assert box("ps", "-a", "--format", "{{.Size}}").stdout.startswith("1.23MB (virtual ")
    assert "SIZE" not in box("ps", "-a").stdout


@pytest.mark.root
def test_df_counts_and_prune_removes_what_no_container_needs(box: Tierce) -> None:
    """A container that runs, one that has ended, a volume of each, a network without anybody."""
    write = "head -c {size} /dev/zero > {path}; echo ready; {then}"
    started(box, write.format(size=2_000_000, path="/used", then="exec sleep 600"), "-v", "/kept", name="runs")
    ended = box(
        *DETACHED, "--name", "ended", "-v", "/spare", "busybox",
        "sh", "-c", write.format(size=1_000_000, path="/spare/file", then="exit 0"),
    ).stdout.strip()  # fmt: skip
    box("wait", "ended")
    box("network", "create", "alone")
    form = "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}"
    rows = box("system", "df", "--format", form).stdout.splitlines()
    assert rows[0].startswith("Images 1 1 ")
    assert rows[0].endswith(" 0B (0%)")
    assert rows[1:3] == ["Containers 2 1 2MB 0B (0%)", "Local Volumes 2 2 1MB 0B (0%)"]
    verbose = box("system", "df", "-v").stdout
    assert re.search(rf"{ended[:12]} +busybox +1 +0B .* exited +ended", verbose)
    assert "Local Volumes space usage:\n\nVOLUME NAME" in verbose
    refused = box.attempt("system", "prune", "--volumes", "-f", "--filter", "until=1h")
    assert (refused.code, "not possible together with --volumes" in refused.stderr) == (1, True)
    said = box("system", "prune", "-f", "--volumes").stdout
    assert said.startswith(f"Deleted Containers:\n{ended}\n\nDeleted Networks:\nalone\n\nDeleted Volumes:\n")
    assert "Total reclaimed space: 1MB" in said
    assert box("ps", "-a", "--format", "{{.Names}}").stdout == "runs\n"
    assert len(box("volume", "ls", "-q").stdout.split()) == 1
    assert box("network", "ls", "-q", "--filter", "name=alone").stdout == ""
    assert box("images", "-q").stdout != ""


@pytest.mark.root
def test_system_prune_spares_what_is_younger_or_labelled_otherwise(box: Tierce) -> None:
    for name in ("one", "two"):
        box("create", "--name", name, "--label", f"is={name}", "busybox")
    box("system", "prune", "-f", "--filter", "until=1h")
    box("system", "prune", "-f", "--filter", "label=is=one")
    assert box("ps", "-a", "--format", "{{.Names}}").stdout == "two\n"
