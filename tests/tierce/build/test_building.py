"""Whole builds on a real store with real sandboxes: the cache, parallelism, failures."""

from __future__ import annotations

import gzip
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from builder.outputs import BuiltImage
from builder.progress import Event, StepCached, StepCancelled, StepDone, StepFailed, StepOutput, StepStarted
from builder.solve import SolveOptions
from builder.stage_plan import PlanOptions
from image.errors import DockerfileError
from image.reference import Reference
from store.failed_steps import FailedSteps
from store.layers import mounted
from store.store import Store
from tests.support.cli import Tierce
from tests.support.context import File, write_context
from tierce.build.base_images import StoredImages
from tierce.build.building import Build, BuildRequest, Connections
from tierce.build.sandbox import RunnerSandbox
from tierce.host_platform import host_platform
from transfer.archives import load
from transfer.copy import CopyOptions

pytestmark = pytest.mark.root

HERE = host_platform()
SOLVE = SolveOptions()
OPTIONS = PlanOptions(platform=HERE, build_platform=HERE, network="none")


@dataclass
class Workbench:
    """A store with busybox, a context, and what the last build told."""

    root: Path
    context: Path
    events: list[Event] = field(default_factory=list)
    secrets: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    agents: dict[str, Path] = field(default_factory=dict)
    authorities: Path | None = None
    watch: Callable[[Event], None] = lambda event: None

    def write(self, **files: str) -> None:
        for name, text in files.items():
            path = self.context / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def build(
        self,
        dockerfile: str,
        plan: PlanOptions = OPTIONS,
        solve: SolveOptions = SOLVE,
        root: Path | None = None,
    ) -> BuiltImage:
        self.events.clear()

        def record(event: Event) -> None:
            self.events.append(event)
            self.watch(event)

        request = BuildRequest(
            context=self.context, dockerfile=dockerfile.encode(), name="Dockerfile", path=None, plan=plan, solve=solve,
            tags=(Reference.parse("built:latest"),),
        )  # fmt: skip
        with Store.open(root or self.root) as store, store.session() as session, RunnerSandbox(os.environ) as sandbox:
            images = StoredImages(store, session, os.environ)
            return Build(
                session,
                request,
                Connections(images, sandbox, record, time.time, self.secrets, self.agents, self.authorities),
            ).run()

    def names(self, kind: type[StepCached | StepDone | StepCancelled | StepFailed]) -> list[str]:
        return [event.name.partition("] ")[2] for event in self.events if isinstance(event, kind)]

    def output(self) -> str:
        return b"".join(event.data for event in self.events if isinstance(event, StepOutput)).decode()

    def listing(self, built: BuiltImage) -> dict[str, str]:
        """``path → mode uid:gid [content or target]`` of everything in a built image."""
        with Store.open(self.root) as store:
            chain = store.facts(built.manifest).layers[-1].chain_id
            with mounted(store.layers.overlay(store.layers.directories_of(chain))) as fd:
                return dict(_list(fd, ""))


def _list(fd: int, prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name in sorted(os.listdir(fd)):
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        mode = f"{status.st_mode & 0o7777:o} {status.st_uid}:{status.st_gid}"
        child = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd) if _opens(status) else -1
        if child < 0:
            found.append((prefix + name, f"-> {os.readlink(name, dir_fd=fd)}"))
        elif os.path.isdir(child):
            found += [(f"{prefix}{name}/", mode), *_list(child, f"{prefix}{name}/")]
        else:
            found.append((prefix + name, f"{mode} {os.read(child, 100).decode('latin-1')}"))
        if child >= 0:
            os.close(child)
    return found


def _opens(status: os.stat_result) -> bool:
    return status.st_mode & 0o170000 != 0o120000


@pytest.fixture
def bench(tmp_path: Path, busybox_archive: Path) -> Workbench:
    (tmp_path / "context").mkdir()
    with Store.open(tmp_path / "root") as store:
        load(str(busybox_archive), store, CopyOptions(HERE))
    return Workbench(tmp_path / "root", tmp_path / "context")


def test_a_rebuild_is_served_from_the_cache_and_gives_the_same_image(bench: Workbench) -> None:
    bench.write(a="1")
    text = "FROM busybox\nCOPY a /a\nRUN date > /now\nENV X=1\nWORKDIR /w\nCMD x"
    first = bench.build(text)
    second = bench.build(text)
    assert second == first
    assert bench.names(StepCached) == ["FROM busybox", "COPY a /a", "RUN date > /now", "WORKDIR /w"]
    assert bench.names(StepDone) == []


@pytest.mark.parametrize(
    ("change", "cached"),
    [
        (lambda bench: bench.write(b="changed"), ["FROM busybox", "RUN true", "COPY a /"]),
        (lambda bench: bench.write(a="changed"), ["FROM busybox", "RUN true"]),
        (lambda bench: os.utime(bench.context / "a", (1, 1)), ["FROM busybox", "RUN true", "COPY a /", "COPY b /"]),
        (lambda bench: (bench.context / "a").chmod(0o600), ["FROM busybox", "RUN true"]),
        (lambda bench: bench.write(c="new"), ["FROM busybox", "RUN true", "COPY a /", "COPY b /"]),
    ],
    ids=["last file", "first file", "mtime only", "mode", "a file that is not copied"],
)
def test_a_change_rebuilds_what_depends_on_it(
    bench: Workbench, change: Callable[[Workbench], None], cached: list[str]
) -> None:
    text = "FROM busybox\nRUN true\nCOPY a /\nCOPY b /"
    bench.write(a="a", b="b")
    bench.build(text)
    change(bench)
    bench.build(text)
    assert bench.names(StepCached) == cached


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        (replace(OPTIONS, build_args={"A": "2"}), 1),
        (replace(OPTIONS, build_args={"HTTP_PROXY": "http://p"}), 0),
        (replace(OPTIONS, labels={"l": "1"}), 0),
        (replace(OPTIONS, no_cache=True), 2),
        (replace(OPTIONS, network="host", allowed=frozenset({"network.host"})), 2),
    ],
    ids=["build arg", "proxy", "label", "no cache", "network"],
)
def test_what_the_cache_depends_on(bench: Workbench, options: PlanOptions, runs: int) -> None:
    text = "FROM busybox\nRUN echo before\nARG A=1\nRUN echo after"
    bench.build(text)
    bench.build(text, options)
    assert len(bench.names(StepDone)) == runs


def test_a_stage_that_gives_the_same_files_invalidates_nothing(bench: Workbench) -> None:
    text = (
        "FROM busybox AS make\nCOPY a /a\nRUN echo same > /result\nFROM busybox\nCOPY --from=make /result /\nRUN true"
    )
    bench.write(a="1")
    bench.build(text)
    bench.write(a="2")
    bench.build(text)
    assert bench.names(StepDone) == ["COPY a /a", "RUN echo same > /result"]
    assert bench.names(StepCached)[-2:] == ["COPY --from=make /result /", "RUN true"]
    bench.build(text)
    assert bench.names(StepDone) == []


def test_a_cached_result_that_was_pruned_is_made_again(bench: Workbench) -> None:
    text = "FROM busybox\nRUN echo 1 > /x\nRUN echo 2 > /y"
    bench.build(text)
    with Store.open(bench.root) as store:
        store.metadata.remove_cached([record.key for record in store.metadata.cache()])
        for record in store.metadata.names():
            if "built" in record.name:
                store.remove_image(record.target.digest)
        store.collect()
    bench.build(text)
    assert bench.names(StepDone) == ["RUN echo 1 > /x", "RUN echo 2 > /y"]


def test_independent_stages_run_side_by_side(bench: Workbench) -> None:
    """Each RUN waits until the other was started."""
    both = threading.Barrier(2, timeout=60)

    def meet(event: Event) -> None:
        if isinstance(event, StepStarted) and "RUN" in event.name:
            both.wait()

    bench.watch = meet
    bench.build(
        "FROM busybox AS a\nRUN echo a > /a\nFROM busybox AS b\nRUN echo b > /b\n"
        "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /"
    )
    assert not both.broken


def test_a_failure_stops_the_others_and_keeps_what_was_done(bench: Workbench) -> None:
    text = (
        "FROM busybox AS a\nRUN echo done\nRUN sleep 0.5; exit 7\nFROM busybox AS b\nRUN sleep 600\n"
        "FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /"
    )
    with pytest.raises(DockerfileError, match="exit code: 7") as caught:
        bench.build(text)
    assert caught.value.span is not None
    assert caught.value.span.start == 3
    assert caught.value.source[2] == "RUN sleep 0.5; exit 7"
    assert bench.names(StepCancelled) == ["RUN sleep 600"]
    with pytest.raises(DockerfileError):
        bench.build(text)
    assert "RUN echo done" in bench.names(StepCached)


def test_a_failed_step_can_be_entered(bench: Workbench) -> None:
    text = "FROM busybox\nRUN echo below > /below\nENV A=b\nWORKDIR /w\nRUN echo partial > f; exit {n}"
    for number in range(1, 5):
        with pytest.raises(DockerfileError, match=f"exit code: {number}") as caught:
            bench.build(text.format(n=number))
    assert caught.value.hint is not None
    step_id = caught.value.hint.rpartition(" ")[2]
    tierce = Tierce(bench.root)
    result = tierce("builder", "shell", step_id, "sh", "-c", "cat f /below; pwd; echo $A")
    assert result.stdout.split() == ["partial", "below", "/w", "b"]
    assert tierce.attempt("builder", "shell", "", "sh", "-c", "exit 9").code == 9
    assert tierce.attempt("builder", "shell", "none").code == 1
    tierce("system", "check")
    with Store.open(bench.root) as store:
        kept = FailedSteps(store)
        assert len(kept.ids()) == 3, "the oldest went when the fourth came"
        store.collect()
        before = store.layers.directories()
        for known in kept.ids():
            kept.remove(known)
        assert len(before - store.layers.directories()) == 3


def test_a_failed_step_has_its_mounts_again(bench: Workbench) -> None:
    text = (
        "FROM busybox AS stage\nRUN mkdir /d && echo stage > /d/x\nFROM busybox\n"
        "RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=secret,id=s"
        " --mount=target=/src --mount=source=f,target=/file --mount=source=d,target=/d,rw"
        " --mount=from=stage,source=/d,target=/m --mount=from=stage,source=d/x,target=/w,rw <<E\n"
        "#!/bin/sh\necho kept > /c/f; echo new > /d/new; echo thrown away > /w; exit 1\nE"
    )
    bench.write(f="f", d__one="1", hidden="h", **{".dockerignore": "hidden\n"})
    bench.secrets = {"s": lambda: b"hidden"}
    with pytest.raises(DockerfileError) as caught:
        bench.build(text)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("look inside, without its secrets, with: tierce builder shell ")
    bench.write(f="changed afterwards")
    with Store.open(bench.root) as store:
        store.metadata.remove_cached([record.key for record in store.metadata.cache()])
        store.collect()
    tierce = Tierce(bench.root)
    command = (
        "cat /c/f /file /src/f; echo; ls /src; cat /d/new /m/x /w; tail -1 /dev/pipes/E | cut -c1-9;"
        " mount | grep -c ' on /t '; touch /m/x /src/x /file /dev/pipes/E 2>/dev/null; echo again > /w;"
        " cat /run/secrets/s"
    )
    for _ in range(2):
        seen = tierce.attempt("builder", "shell", "", "sh", "-c", command)
        assert seen.stdout.split() == [
            "kept", "ff", "d", "f", "new", "stage", "stage", "echo", "kept", "1",
        ], str(seen)  # fmt: skip
        assert "not in this shell: secret s\n" in seen.stderr
        assert "can't open '/run/secrets/s'" in seen.stderr
    tierce("system", "check")
    with Store.open(bench.root) as store:
        kept = FailedSteps(store)
        step = kept.get()
        assert sorted(os.listdir(store.layers.base / step.directory)) == [
            "diff",
            "link",
            "merged",
            "mounts",
            "script",
            "work",
        ]
        kept.remove(step.id)
        store.collect()
        known = {layer.directory for layer in store.metadata.layers()}
        assert store.layers.directories() == known


def test_a_shell_may_open_where_a_build_failed(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    files = {
        "Dockerfile": File("FROM busybox\nENV A=b\nRUN --mount=target=/src echo partial > /made; exit 3\n"),
        "f": File("of the context"),
    }
    build = ("build", "--network=none", "--shell-on-failure", write_context(tmp_path / "shell", files))
    done = tierce_with_busybox.attempt(*build, stdin="cat /made /src/f; echo; echo $A\n")
    assert done.code == 1, str(done)
    assert done.stdout.split() == ["partial", "of", "the", "context", "b"]
    assert "exit code: 3" in done.stderr


def test_a_failed_step_has_its_surroundings_again(
    tierce_with_busybox: Tierce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step saw and what its shell sees are the same words."""
    (tmp_path / "bundle.crt").write_text("authorities\n")
    (tmp_path / "lent").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bundle.crt"))
    monkeypatch.setenv("HTTP_PROXY", "http://user:canary@proxy.test")
    look = (
        "hostname; ulimit -n; df -k /dev/shm | tail -1 | awk '{print $2}'; cat $SSL_CERT_FILE; grep db /etc/hosts;"
        " grep CapBnd /proc/self/status; ls /lent; ls /sys/class/net | wc -l; test -e /dev/kmsg && echo devices;"
        " echo $HTTP_PROXY; head -1 /etc/resolv.conf; touch /lent/x 2>&1"
    )
    files = {"Dockerfile": File(f"FROM busybox\nRUN --security=insecure --network=host {look}; exit 3\n")}
    flags = (
        "--allow=security.insecure,network.host", "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=mine", "--ulimit=nofile=77:88",
        "--shm-size=2m", "--host-ca", "--add-host=db:10.1.2.3", f"-v={tmp_path}/lent:/lent:ro", "--dns=10.9.9.9",
        "--progress=plain",
    )  # fmt: skip
    build = tierce_with_busybox.attempt("build", *flags, write_context(tmp_path / "context", files))
    assert build.code == 1, str(build)
    seen = re.findall(r"^#\d+ \d+\.\d+ (.*)$", build.stderr, re.MULTILINE)
    assert seen[:5] == ["mine", "77", "2048", "authorities", "10.1.2.3 db"], str(build)
    again = tierce_with_busybox.attempt("builder", "shell", "", "sh", "-c", look)
    assert again.stdout.replace("\t", " ").splitlines() == seen, str(again)
    assert again.stderr == ""
    monkeypatch.delenv("HTTP_PROXY")
    (tmp_path / "bundle.crt").unlink()
    poorer = tierce_with_busybox.attempt("builder", "shell", "", "sh", "-c", "true")
    assert poorer.stderr.startswith(f"not in this shell: {tmp_path}/bundle.crt, ")
    assert "HTTP_PROXY" in poorer.stderr
    kept = [path.read_text() for path in (tierce_with_busybox.root / "failed").iterdir()]
    assert not [text for text in kept if "canary" in text]


def test_run_sees_what_it_should(bench: Workbench) -> None:
    bench.build(
        "FROM busybox\nARG A=1\nENV E='x y'\nWORKDIR /w\nUSER 7:8\nRUN echo $A $E $(pwd) $(id -u):$(id -g) $HOME; echo err >&2"
    )
    assert sorted(bench.output().splitlines()) == ["1 x y /w 7:8 /", "err"]


def test_run_leaves_no_trace_of_its_mounts(bench: Workbench) -> None:
    (bench.context / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (bench.context / "busybox").chmod(0o755)
    built = bench.build('FROM scratch\nCOPY busybox /bin/\nRUN ["/bin/busybox", "touch", "/made"]')
    assert sorted(bench.listing(built)) == ["bin/", "bin/busybox", "made"]


def test_a_heredoc_script_runs_and_is_gone(bench: Workbench) -> None:
    built = bench.build(
        "FROM busybox\nRUN <<EOF\n#!/bin/sh\necho from $0 > /made\nEOF\nRUN <<EOF\nset -e\necho two > /two\nEOF"
    )
    listing = bench.listing(built)
    assert listing["made"].endswith("from /dev/pipes/EOF\n")
    assert listing["two"].endswith("two\n")
    assert not any("pipes" in path for path in listing)


def test_a_cache_mount_outlives_builds_and_is_in_no_layer(bench: Workbench) -> None:
    text = "FROM busybox\nRUN --mount=type=cache,target=/c echo {n} >> /c/f; cp /c/f /seen"
    bench.build(text.format(n=1))
    listing = bench.listing(bench.build(text.format(n=2)))
    assert listing["seen"].endswith("1\n2\n")
    assert not any(path.startswith("c/") for path in listing)


def test_cache_mounts_differ_by_id_and_owner(bench: Workbench) -> None:
    bench.build("FROM busybox\nRUN --mount=type=cache,target=/c,id=one touch /c/one")
    bench.build(
        "FROM busybox\nRUN --mount=type=cache,target=/a,id=one,uid=7,mode=0700 --mount=type=cache,target=/b,id=one"
        " ls -ldn /a | cut -c1-10; ls /a; ls /b"
    )
    assert bench.output().split() == ["drwx------", "one"]


def test_a_secret_is_seen_by_its_step_alone(bench: Workbench) -> None:
    """A canary, then every byte of the store is searched for it."""
    bench.secrets = {"token": lambda: b"canary-1f4b", "other": lambda: b"canary-77aa"}
    built = bench.build(
        "FROM busybox\nRUN --mount=type=secret,id=token --mount=type=secret,id=other,env=OTHER"
        " test $(cat /run/secrets/token) = canary-1f4b && test $OTHER = canary-77aa && stat -c %a:%u /run/secrets/token"
        "\nRUN --mount=type=secret,id=absent ! test -e /run/secrets/absent && ! test -e /run/secrets/token"
        "\nRUN --mount=type=secret,id=token,target=/t,mode=0444,uid=5 stat -c %a:%u /t"
    )
    assert bench.output().split() == ["400:0", "444:5"]
    assert not any(path.startswith(("run/secrets", "t")) and path != "tmp/" for path in bench.listing(built))
    for path in bench.root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
            assert b"canary-" not in data.replace(b"= canary-1f4b", b"").replace(b"= canary-77aa", b""), path
    assert "canary" not in repr(bench.events).replace("= canary-1f4b", "").replace("= canary-77aa", "")


def test_bind_mounts_show_what_they_name_and_discard_writes(bench: Workbench) -> None:
    bench.write(f="f", d__one="1", hidden="h", **{".dockerignore": "hidden\n"})
    built = bench.build(
        "FROM busybox AS other\nRUN mkdir /data && echo stage > /data/x\nFROM busybox\n"
        "RUN --mount=target=/src ls /src && ! touch /src/new\n"
        "RUN --mount=from=other,source=/data,target=/m cat /m/x && ! touch /m/x\n"
        "RUN --mount=from=other,source=/data/x,target=/file cat /file\n"
        "RUN --mount=type=bind,source=d,target=/d,rw touch /d/new && ls /d\n"
        "RUN --mount=type=tmpfs,target=/t,size=1m touch /t/x && df -m /t | tail -1 | grep -c tmpfs"
    )
    lines = [line for line in bench.output().splitlines() if "Read-only" not in line]
    assert lines == ["d", "f", "stage", "stage", "new", "one", "1"]
    assert (bench.context / "d").is_dir()
    assert not (bench.context / "d" / "new").exists()
    assert not {"src/", "m/", "d/", "t/", "file"} & bench.listing(built).keys()


def test_a_bind_mount_is_part_of_the_key_by_content(bench: Workbench) -> None:
    text = "FROM busybox\nRUN --mount=target=/src,source=d cat /src/one"
    bench.write(d__one="1", other="x")
    bench.build(text)
    bench.write(other="y")
    bench.build(text)
    assert bench.names(StepDone) == []
    bench.write(d__one="2")
    bench.build(text)
    assert bench.output() == "2"


def test_an_ssh_agent_is_a_socket_in_the_step(bench: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        bench.agents = {"default": path}
        bench.build(
            "FROM busybox\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK\n"
            "RUN --mount=type=ssh,target=/a,uid=7,gid=8,mode=0440 stat -c '%a:%u:%g %F' /a\n"
            "ENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh echo $SSH_AUTH_SOCK; test -S /run/buildkit/ssh_agent.0"
        )
    assert bench.output() == "/run/buildkit/ssh_agent.0\n440:7:8 socket\n/mine\n"


def test_an_agent_that_has_ended_is_one_line(bench: Workbench, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "agent"))
    bench.agents = {"default": tmp_path / "agent"}
    with pytest.raises(DockerfileError, match=r"ssh agent default: .*/agent: connection refused: start ssh-agent"):
        bench.build("FROM busybox\nRUN --mount=type=ssh true")


def test_a_cache_that_starts_from_files_is_another_cache(bench: Workbench) -> None:
    """Told apart by what it started from; without a stage, ``source`` is a directory of the cache itself."""
    base = "FROM busybox AS a\nRUN mkdir /d && echo {n} > /d/f && ln -s ../../../../d /up\nFROM busybox\n"
    bench.build(
        "FROM busybox\nRUN --mount=type=cache,target=/c mkdir /c/sub && touch /c/sub/plain && ln -s /etc /c/out"
    )
    mount = (
        "RUN --mount=type=cache,target=/c,from=a,source={source} f=$(cat /c/f); echo $f >> /c/f; echo $f; ls /c; : {n}"
    )
    for number, source, expected in (
        (1, "/d", "1 f"), (1, "/up", "1 f"), (2, "/d", "2 f"), (1, "/d", "1 1 f"),
    ):  # fmt: skip
        plan = replace(OPTIONS, no_cache_stages=frozenset({""}))
        bench.build((base + mount).format(n=number, source=source), plan)
        assert bench.output().split() == expected.split()
    bench.build("FROM busybox\nRUN --mount=type=cache,target=/c,source=sub ls /c")
    assert bench.output().split() == ["plain"]
    for absent in ("nothing", "out"):
        with pytest.raises(DockerfileError, match="not found"):
            bench.build(f"FROM busybox\nRUN --mount=type=cache,target=/c,source={absent} ls {absent}")


def test_the_hosts_certificates_are_trusted_and_leave_no_trace(bench: Workbench, tmp_path: Path) -> None:
    text = "FROM busybox\nENV PIP_CERT=mine\nRUN cat $SSL_CERT_FILE; echo $PIP_CERT $NODE_EXTRA_CA_CERTS; ls /run/tierce 2>&1; true"
    plain = bench.build(text)
    (tmp_path / "bundle").write_text("CERTIFICATES\n")
    bench.authorities = tmp_path / "bundle"
    assert bench.build(text) == plain, "not part of a cache key"
    trusting = bench.build(text, replace(OPTIONS, no_cache=True))
    assert bench.output().split() == ["CERTIFICATES", "mine", "/run/tierce/ca-certificates.crt", "ca-certificates.crt"]
    assert not any(path.startswith("run") for path in bench.listing(trusting))
    assert "ca-certificates" not in trusting.config.encode().decode().replace("ls /run/tierce", "")


@pytest.mark.parametrize(
    ("mount", "problem"),
    [
        ("type=secret,id=absent,required", "secret absent: not found"),
        ("type=ssh,required", "ssh agent default: not found"),
        ("from=busybox,source=/absent,target=/x", "/absent"),
        ("target=/", "invalid mount target"),
        ("type=secret,id=large", "secret large is larger than 512000 bytes"),
        ("source=outside,target=/x", '"/(outside|secret)": not found'),
        ("source=../../../etc/passwd,target=/x", '"/etc/passwd": not found'),
        ("type=cache,source=hidden,from=files,target=/x", '"/hidden": not found'),
        ("from=files,source=hidden,target=/x", '"/hidden": not found'),
        ("from=files,source=absolute,target=/x", "not found"),
        ("type=cash,target=/x", "did you mean"),
    ],
)
def test_what_mounts_refuse(bench: Workbench, tmp_path: Path, mount: str, problem: str) -> None:
    (tmp_path / "secret").write_text("s")
    (bench.context / "outside").symlink_to("../secret")
    (bench.context / "absolute").symlink_to(tmp_path / "secret")
    bench.write(hidden="h", **{".dockerignore": "hidden\n"})
    bench.secrets = {"large": lambda: bytes(500 * 1024 + 1)}
    with pytest.raises(DockerfileError, match=problem):
        bench.build(f"FROM scratch AS files\nCOPY . /\nFROM busybox\nRUN --mount={mount} true")


COPY_TABLE = [
    ("COPY f /", {"f": "644 0:0 f"}),
    ("COPY f /new", {"new": "644 0:0 f"}),
    ("COPY f /new/", {"new/": "755 0:0", "new/f": "644 0:0 f"}),
    ("COPY f /a/b/new", {"a/": "755 0:0", "a/b/": "755 0:0", "a/b/new": "644 0:0 f"}),
    ("COPY d /", {"one": "644 0:0 1", "sub/": "700 0:0", "sub/two": "644 0:0 2", "link": "-> one"}),
    ("COPY d /x", {"x/": "755 0:0", "x/one": "644 0:0 1", "x/sub/": "700 0:0", "x/sub/two": "644 0:0 2", "x/link": "-> one"}),
    ("COPY d/link /x", {"x": "644 0:0 1"}),
    ("COPY d/link /x/", {"x/": "755 0:0", "x/link": "644 0:0 1"}),
    ("COPY f g /x/", {"x/": "755 0:0", "x/f": "644 0:0 f", "x/g": "4755 0:0 g"}),
    ("COPY [fg] /x/", {"x/": "755 0:0", "x/f": "644 0:0 f", "x/g": "4755 0:0 g"}),
    ("COPY nothing* /x/", {}),
    ("COPY ../../f /", {"f": "644 0:0 f"}),
    ("COPY --chown=5:6 f /x/", {"x/": "755 5:6", "x/f": "644 5:6 f"}),
    ("COPY --chown=5 d/sub /x", {"x/": "755 5:5", "x/two": "644 5:5 2"}),
    ("COPY --chmod=600 f /x/", {"x/": "600 0:0", "x/f": "600 0:0 f"}),
    ("COPY --chmod=u+x f /x", {"x": "744 0:0 f"}),
    ("COPY --exclude=sub d /x", {"x/": "755 0:0", "x/one": "644 0:0 1", "x/link": "-> one"}),
    ("COPY --parents d/./sub/two /x/", {"x/": "755 0:0", "x/sub/": "700 0:0", "x/sub/two": "644 0:0 2"}),
    ("COPY <<A <<B /x/\na\nA\nb\nB", {"x/": "755 0:0", "x/A": "644 0:0 a\n", "x/B": "644 0:0 b\n"}),
    ("WORKDIR /w\nCOPY f .", {"w/": "755 0:0", "w/f": "644 0:0 f"}),
    ("COPY f /x\nCOPY g /x", {"x": "4755 0:0 g"}),
    ("ADD a.tar.gz /x", {"x/": "755 0:0", "x/in/": "750 0:0", "x/in/file": "640 3:4 tar"}),
    ("ADD --chown=9 a.tar.gz /x/", {"x/": "755 9:9", "x/in/": "750 9:9", "x/in/file": "640 9:9 tar"}),
    ("ADD --unpack=false a.tar.gz /b/", None),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "expected"), COPY_TABLE, ids=[lines.splitlines()[0] for lines, _ in COPY_TABLE])
def test_what_copy_makes(bench: Workbench, lines: str, expected: dict[str, str] | None) -> None:
    import io
    import tarfile

    bench.write(f="f", g="g", d__one="1", d__sub__two="2")
    (bench.context / "d" / "link").symlink_to("one")
    (bench.context / "d" / "sub").chmod(0o700)
    (bench.context / "g").chmod(0o4755)
    with tarfile.open(bench.context / "a.tar.gz", "w:gz") as tar:
        directory = tarfile.TarInfo("in")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o750
        tar.addfile(directory)
        info = tarfile.TarInfo("in/file")
        info.size, info.mode, info.uid, info.gid = 3, 0o640, 3, 4
        tar.addfile(info, io.BytesIO(b"tar"))
    built = bench.build(f"FROM scratch\n{lines}")
    listing = bench.listing(built)
    if expected is None:
        assert list(listing) == ["b/", "b/a.tar.gz"]
    else:
        assert listing == expected


def test_a_socket_becomes_an_empty_file(bench: Workbench) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(bench.context / "s"))
        (bench.context / "s").chmod(0o640)
        listing = bench.listing(bench.build("FROM scratch\nCOPY . /d\nCOPY s /other"))
    assert listing == {"d/": "755 0:0", "d/s": "640 0:0 ", "other": "640 0:0 "}


def test_a_wildcard_is_known_by_the_names_that_it_matches(bench: Workbench) -> None:
    text = "FROM scratch\nCOPY *.txt /d/"
    bench.write(**{"one.txt": "1", "other": "x"})
    bench.build(text)
    bench.write(other="y", new="z")
    bench.build(text)
    assert bench.names(StepDone) == []
    (bench.context / "one.txt").rename(bench.context / "two.txt")
    assert bench.listing(bench.build(text)) == {"d/": "755 0:0", "d/two.txt": "644 0:0 1"}
    bench.write(**{"three.txt": "3"})
    assert list(bench.listing(bench.build(text))) == ["d/", "d/three.txt", "d/two.txt"]


def test_groups_of_a_user(bench: Workbench) -> None:
    """A name has the groups that name it; with a group it has that one alone; a number has none."""
    text = "FROM busybox\nRUN echo 'me:x:70:71::/:/bin/sh' >> /etc/passwd && echo 'more:x:72:me' >> /etc/group\n"
    words = ["me", "me:73", "70", "74", "70:more", ":72"]
    bench.build(text + "".join(f"USER {word}\nRUN echo {word} $(id -u) $(id -G)\n" for word in words))
    assert bench.output().splitlines() == [
        "me 70 71 72", "me:73 70 73", "70 70 71 72", "74 74 0", "70:more 70 72", ":72 0 72",
    ]  # fmt: skip


def test_copies_between_stages_keep_owners(bench: Workbench) -> None:
    text = "FROM busybox AS a\nRUN touch /f && chown 5:6 /f && chmod 4711 /f\nFROM scratch\nCOPY --from=a /f /\nCOPY --from=a --chown=0 /f /g"
    assert bench.listing(bench.build(text)) == {"f": "4711 5:6 ", "g": "4711 0:0 "}


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("COPY absent /", '"/absent": not found'),
        ("COPY hidden /", "hidden"),
        ("COPY d /f/x\nCOPY f /f\nCOPY d /f/x/one", "cannot copy"),
        ("COPY --chown=nobody f /", "unable to find user nobody"),
        ("COPY --chmod=9 f /", "invalid chmod"),
        ("COPY --from=absent.invalid/x f /", "absent.invalid"),
        ("COPY outside /", '"/(outside|secret)": not found'),
    ],
)
def test_what_copy_refuses(bench: Workbench, tmp_path: Path, lines: str, problem: str) -> None:
    bench.write(f="f", d__one="1", hidden="h", **{".dockerignore": "hidden\n"})
    (tmp_path / "secret").write_text("s")
    (bench.context / "outside").symlink_to("../secret")
    with pytest.raises(DockerfileError, match=problem) as caught:
        bench.build(f"FROM scratch\n{lines}")
    assert caught.value.source, "the excerpt can be shown"
    with Store.open(bench.root) as store:
        store.collect()
        assert {record.name for record in store.metadata.names()} == {"docker.io/library/busybox:latest"}


def test_a_full_disk_is_one_clear_line_and_the_store_stays_whole(
    bench: Workbench, tmp_path: Path, busybox_archive: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", small], check=True)
    try:
        bench.root = small / "root"
        with Store.open(bench.root) as store:
            load(str(busybox_archive), store, CopyOptions(HERE))
        (bench.context / "big").write_bytes(os.urandom(5 << 20))
        with pytest.raises(DockerfileError, match="no space left on device") as caught:
            bench.build("FROM busybox\nCOPY big /a\nRUN sleep 600")
        assert caught.value.span is not None
        with Store.open(bench.root) as store:
            store.collect()
            assert os.listdir(bench.root / "ingest") == []
            for record in store.metadata.names():
                for blob in store.facts(record.target).blobs:
                    store.content.read(blob)
        bench.build("FROM busybox\nRUN echo still works")
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_epoch_makes_two_stores_agree(bench: Workbench, tmp_path: Path, busybox_archive: Path) -> None:
    text = (
        "FROM busybox\nWORKDIR /w\nCOPY f /d/\nRUN mkdir /m; date > /dev/null; touch /m/f\nADD d /e/\nCOPY <<A /A\na\nA"
    )
    bench.write(f="f", d__one="1")
    other = tmp_path / "other"
    with Store.open(other) as store:
        load(str(busybox_archive), store, CopyOptions(HERE))
    plain = bench.build(text)
    options = SolveOptions(epoch_s=1_700_000_000)
    first = bench.build(text, solve=options)
    os.utime(bench.context / "f", (1_800_000_000, 1_800_000_000))
    second = bench.build(text, solve=options, root=other)
    assert first.manifest == second.manifest != plain.manifest
    assert first.config.created == "2023-11-14T22:13:20Z"


def test_two_builds_at_once_share_a_store(bench: Workbench) -> None:
    from concurrent.futures import ThreadPoolExecutor

    benches = [Workbench(bench.root, bench.context) for _ in range(4)]
    bench.write(f="f")
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda one: one.build("FROM busybox\nCOPY f /\nRUN echo x > /x"), benches))
    with Store.open(bench.root) as store:
        store.collect()
        for built in images:
            if str(built.manifest.digest) in {str(record.target.digest) for record in store.metadata.images()}:
                for blob in store.facts(built.manifest).blobs:
                    store.content.read(blob)


def test_a_blob_that_is_there_is_not_written_again_unless_it_is_cut_off(tierce: Tierce, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /a\n")

    def build() -> dict[str, tuple[int, int]]:
        tierce("build", "--no-cache", "--timestamp=1500000000", "-t", "made", tmp_path)
        files = (tierce.root / "blobs" / "sha256").iterdir()
        return {file.name: (file.stat().st_ino, file.stat().st_size) for file in files}

    before = build()
    assert build() == before
    (layer,) = (
        tierce.root / "blobs" / "sha256" / name
        for name in before
        if (tierce.root / "blobs" / "sha256" / name).read_bytes().startswith(b"\x1f\x8b")
    )
    os.truncate(layer, 10)
    assert build()[layer.name][1] == before[layer.name][1]
