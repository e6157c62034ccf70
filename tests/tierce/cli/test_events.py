"""``tierce events``: what is told of containers, images, networks and volumes, in which order and form."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from store.journal import Event
from tests.support.cli import Tierce
from tests.support.process import is_asleep
from tests.support.waiting import until
from tests.tierce.cli.test_containers import monitor_of
from tierce.cli.events import document, line, passes
from tierce.cli.templates.printing import to_json

root = pytest.mark.root
QUIET = ("--network", "none", "busybox")


def told(box: Tierce, *flags: str, form: str = "{{.Type}} {{.Action}}") -> list[str]:
    return box("events", "--since", "5m", "--until", "0s", "--format", form, *flags).stdout.splitlines()


@root
@pytest.mark.parametrize("watched", [False, True], ids=["by the command", "by a monitor"])
def test_the_order_of_a_run(watched: bool, box: Tierce) -> None:
    box("network", "create", "web")
    flags = ("--health-cmd", "true") if watched else ()
    box("run", "--rm", "--name", "web1", "--network", "web", *flags, "-v", "data:/d", "busybox", "true")
    box("network", "rm", "web")
    box("volume", "rm", "data")
    until(lambda: "container destroy" in told(box))
    events = told(box, "--filter", "type=container", "--filter", "type=network")
    assert events == [
        "network create", "container create", "container attach", "network connect", "container start", "container die",
        "network disconnect", "container destroy", "network destroy",
    ]  # fmt: skip
    assert told(box, "--filter", "volume=data") == ["volume create", "volume mount", "volume unmount", "volume destroy"]


@root
def test_what_is_done_to_a_container(box: Tierce) -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    box("run", "-d", "--name", "one", "--label", "app=web", *QUIET, "sh", "-c", script)
    until(lambda: box("logs", "one").stdout == "ready\n")
    box("exec", "one", "true")
    box("pause", "one")
    box("unpause", "one")
    box("update", "--restart", "on-failure:1", "one")
    box("stop", "one")
    box("rename", "one", "two")
    box("rm", "two")
    own = told(box, "--filter", "label=app=web", form='{{.Status}} {{index .Actor.Attributes "exitCode"}}')
    assert [word.strip() for word in own] == [
        "create", "start", "exec_create: true", "exec_start: true", "exec_die 0", "pause", "unpause", "update", "kill",
        "die 7", "stop", "rename", "destroy",
    ]  # fmt: skip
    assert told(box, "--filter", "event=rename", form="{{json .Actor.Attributes}}") == [
        '{"app":"web","image":"busybox","name":"two","oldName":"/one"}'
    ]
    assert told(box, "--filter", "event=exec_create") == ["container exec_create: true"]
    assert told(box, "--filter", "container=two", "--filter", "event=die") == []


@root
def test_memory_and_a_killed_monitor(box: Tierce) -> None:
    box.attempt("run", "--name", "big", "-m", "8m", *QUIET, "tail", "/dev/zero")
    assert box.attempt("run", "--rm", "--name", "passing", "-m", "8m", *QUIET, "tail", "/dev/zero").code == 137
    assert box("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "big").stdout == "true 137\n"
    container = box("run", "-d", "--name", "gone", *QUIET, "sh", "-c", "echo up; exec sleep 60").stdout.strip()
    until(lambda: box("logs", "gone").stdout == "up\n")
    os.kill(monitor_of(box, container), signal.SIGKILL)
    assert box("wait", "gone").stdout == "137\n"
    form = '{{.Action}} {{index .Actor.Attributes "exitCode"}}'
    died = ["create", "attach", "start", "oom", "die 137"]
    assert [word.strip() for word in told(box, "--filter", "container=big", form=form)] == died
    assert [word.strip() for word in told(box, "--filter", "container=passing", form=form)] == [*died, "destroy"]
    assert told(box, "--filter", "container=gone", "--filter", "event=die", form=form) == ["die 137"]


@root
def test_health_and_backoff(box: Tierce) -> None:
    check = ("--health-cmd", "test ! -f /tmp/ill", "--health-interval", "100ms", "--health-retries", "1")
    box("run", "-d", "--name", "hh", *check, *QUIET, "sleep", "60")
    box("wait", "--condition", "healthy", "hh")
    box("exec", "hh", "touch", "/tmp/ill")
    assert box("wait", "--condition", "unhealthy", "hh").stdout == "-1\n"
    events = told(box, "--filter", "event=health_status", form="{{.Action}}")
    assert events == ["health_status: healthy", "health_status: unhealthy"]
    patient = ("--health-cmd", "false", "--health-start-period", "60s", "--health-start-interval", "50ms")
    box("run", "-d", "--name", "pp", *patient, *QUIET, "sleep", "60")
    until(lambda: box("inspect", "-f", "{{len .State.Health.Log}}", "pp").stdout == "5\n")
    assert box("inspect", "-f", "{{.State.Health.Status}}", "pp").stdout == "starting\n"
    box("run", "-d", "--name", "again", "--restart", "on-failure:2", *QUIET, "false")
    until(lambda: len(told(box, "--filter", "container=again", "--filter", "event=die")) == 3)
    moments = [int(word) for word in told(box, "--filter", "container=again", form="{{.TimeNano}}")[1:]]
    pauses = [after - before for before, after in zip(moments[1::2], moments[2::2], strict=False)]
    assert pauses[0] >= 0.1e9
    assert pauses[1] >= 0.2e9


@pytest.mark.parametrize(
    ("words", "code"), [(("sh", "-c", "exit 3"), 3), (("/absent",), 127)], ids=["ends", "no program"]
)
def test_without_namespaces(words: tuple[str, ...], code: int, box: Tierce) -> None:
    run = ("run", "--rm", "--isolation", "chroot", "--name", "pp", "--label", "a=b", "busybox")
    assert box.attempt(*run, *words).code == code
    form = '{{.Action}} {{index .Actor.Attributes "exitCode"}}'
    events = [word.strip() for word in told(box, "--filter", "label=a=b", "--filter", "container=pp", form=form)]
    assert events == ["create", "attach", "start", f"die {code}", "destroy"]


@root
def test_followed_until_interrupted(box: Tierce) -> None:
    with box.start("events", "--filter", "event=destroy", "--format", "{{.From}}") as process:
        assert process.stdout is not None
        until(lambda: is_asleep(process.pid))  # it has opened the journal
        box("run", "--rm", *QUIET, "true")
        assert process.stdout.readline() == "busybox\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130


def test_images(tierce: Tierce, busybox_archive: str) -> None:
    tierce("load", "-q", "-i", busybox_archive)
    tierce("tag", "busybox", "other:1")
    tierce("save", "-o", tierce.root.with_name("saved.tar"), "busybox")
    tierce("rmi", "other:1")
    tierce("rmi", "busybox")
    names = told(tierce, form="{{.Action}} {{.Actor.Attributes.name}}")
    identity = names[-1].removeprefix("delete ")
    assert names == [
        "tag busybox:latest", f"load {identity}", "tag other:1", f"save {identity}", f"untag {identity}",
        f"untag {identity}", f"delete {identity}",
    ]  # fmt: skip
    assert told(tierce, "--filter", "image=other") == ["image tag"]


EVENT = Event(
    1_700_000_000_123_456_789, "container", "exec_start: ls", "ab" * 32, {"name": "web", "image": "a/b:1", "l": "2"}
)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"container": ["web"]}, True),
        ({"container": ["abab"]}, True),
        ({"container": ["other", "web"]}, True),
        ({"container": ["we"]}, False),
        ({"image": ["a/b"]}, True),
        ({"image": ["a/b:1"], "event": ["exec_start"]}, True),
        ({"event": ["exec"]}, False),
        ({"label": ["l"], "type": ["container"], "scope": ["local"]}, True),
        ({"label": ["l", "m"]}, False),
        ({"network": ["web"]}, False),
    ],
    ids=str,
)
def test_filters(filters: dict[str, list[str]], expected: bool) -> None:
    assert passes(EVENT, filters) is expected


def test_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(to_json(document(EVENT))) == {
        "status": "exec_start: ls", "id": EVENT.id, "from": "a/b:1", "Type": "container", "Action": "exec_start: ls",
        "Actor": {"ID": EVENT.id, "Attributes": {"name": "web", "image": "a/b:1", "l": "2"}},
        "scope": "local", "time": 1_700_000_000, "timeNano": 1_700_000_000_123_456_789,
    }  # fmt: skip
    network = Event(1, "network", "create", "1", {})
    assert list(json.loads(to_json(document(network)))) == ["Type", "Action", "Actor", "scope", "timeNano"]
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.123456789[+-]\d\d:\d\d container exec_start: ls abab\w+ \(image=a/b:1, l=2, name=web\)"
    assert re.fullmatch(pattern, line(EVENT))


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("--filter", "nonsense=1"), "filter 'nonsense' is not known"),
        (("--since", "yesterday"), "invalid time 'yesterday'"),
        (("--format", "{{.Nope}}", "--since", "1h", "--until", "0s"), ""),
    ],
)
def test_mistakes_are_one_line(argv: tuple[str, ...], error: str, tierce: Tierce) -> None:
    done = tierce.attempt("events", "--until", "0s", *argv)
    assert done.code == (1 if error else 0)
    assert error in done.stderr
    assert done.stderr.count("\n") == (1 if error else 0)
