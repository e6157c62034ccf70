"""Caches that travel: a fresh store builds from what another one left, and moves only what it needs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.registry import Registry

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM busybox AS tools
COPY a /a
RUN cat /proc/sys/kernel/random/uuid > /tool && dd if=/dev/urandom of=/big bs=1024 count=2000 2>/dev/null
FROM busybox
COPY b /b
RUN cat /proc/sys/kernel/random/uuid > /made
COPY --from=tools /tool /tool
RUN echo last > /last
ENV X=1
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "a").write_text("a")
    (directory / "b").write_text("b")
    return directory


@pytest.fixture
def fresh(tmp_path: Path, busybox_archive: Path) -> Callable[[str], Tierce]:
    """A store with busybox and nothing else."""

    def make(name: str) -> Tierce:
        tierce = Tierce(tmp_path / name)
        tierce("load", "--input", busybox_archive)
        return tierce

    return make


def build(tierce: Tierce, context: Path, *words: str | Path) -> str:
    """What a build said. Steps are served when the output has no DONE for them."""
    return tierce("build", "--network=none", "--progress=plain", "--tls-verify=false", *words, context).stderr


def performed(said: str) -> list[str]:
    """The steps that were done rather than served, FROM apart."""
    names = dict(re.findall(r"^#(\d+) (\[.*)$", said, re.MULTILINE))
    done = re.findall(r"^#(\d+) DONE", said, re.MULTILINE)
    steps = [names[number] for number in done if number in names]
    return [name.partition("] ")[2] for name in steps if "FROM" not in name]


def made(tierce: Tierce, name: str, path: str = "/made") -> str:
    return tierce("run", "--rm", "--network=none", name, "cat", path).stdout


def image_id(tierce: Tierce, name: str) -> str:
    return tierce("inspect", "--format={{.Id}}", name).stdout.strip()


Places = Callable[[str, Path, Registry], tuple[str, str]]


def registry_place(mode: str, _directory: Path, registry: Registry) -> tuple[str, str]:
    ref = registry.name(f"cache-{mode}-{_directory.parent.name.lower().replace('_', '-')[:40]}")
    return f"type=registry,ref={ref},mode={mode}", f"type=registry,ref={ref}"


def local_place(mode: str, directory: Path, _registry: Registry) -> tuple[str, str]:
    return f"type=local,dest={directory},mode={mode}", f"type=local,src={directory}"


@pytest.mark.parametrize("place", [registry_place, local_place], ids=["registry", "local"])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_fresh_store_builds_without_doing_a_step(
    fresh: Callable[[str], Tierce], context: Path, tmp_path: Path, open_registry: Registry, place: Places, mode: str
) -> None:
    to, source = place(mode, tmp_path / "cache", open_registry)
    first, second = fresh("first"), fresh("second")
    build(first, context, "-t", "app", "--cache-to", to)
    said = build(second, context, "-t", "app", "--cache-from", source)
    assert performed(said) == []
    assert image_id(second, "app") == image_id(first, "app")
    assert made(second, "app") == made(first, "app")
    assert made(second, "app", "/tool") == made(first, "app", "/tool")
    assert second("system", "check").code == 0
    # what was fetched is a cache of its own now
    assert performed(build(second, context, "-t", "again")) == []


def test_only_the_layers_that_are_needed_travel(fresh: Callable[[str], Tierce], context: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = fresh("first"), fresh("second")
    build(first, context, "--cache-to", f"type=local,dest={cache},mode=max")
    build(second, context, "-t", "app", "--cache-from", f"type=local,src={cache}")
    big = max((cache / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    assert big.stat().st_size > 1_000_000  # a stage's layer that the result does not have
    assert not (second.root / "blobs" / "sha256" / big.name).exists()


def test_min_lacks_the_stages_and_max_has_them(fresh: Callable[[str], Tierce], context: Path, tmp_path: Path) -> None:
    first = fresh("first")
    caches = {mode: tmp_path / mode for mode in ("min", "max")}
    for mode, cache in caches.items():
        build(first, context, "--cache-to", f"type=local,dest={cache},mode={mode}")
    text = DOCKERFILE.replace("COPY --from=tools /tool /tool", "COPY --from=tools /a /tool")
    (context / "Dockerfile").write_text(text)
    did = {
        mode: performed(build(fresh(f"with-{mode}"), context, "--cache-from", f"type=local,src={cache}"))
        for mode, cache in caches.items()
    }
    assert [name.partition(" ")[0] for name in did["max"]] == ["COPY", "RUN"]
    assert len(did["min"]) == 4


def test_a_changed_file_uses_the_rest(fresh: Callable[[str], Tierce], context: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build(fresh("first"), context, "--cache-to", f"type=local,dest={cache},mode=max")
    (context / "b").write_text("changed")
    second = fresh("second")
    did = performed(build(second, context, "-t", "app", "--cache-from", f"type=local,src={cache}"))
    assert sorted(name.partition(" ")[0] for name in did) == ["COPY", "COPY", "RUN", "RUN"]
    assert made(second, "app", "/b") == "changed"


def test_the_same_cache_again_sends_no_blob(
    fresh: Callable[[str], Tierce], context: Path, open_registry: Registry
) -> None:
    first = fresh("first")
    word = f"type=registry,ref={open_registry.name('unchanged-cache')},mode=max"
    build(first, context, "--cache-to", word)
    data = open_registry.directory / "data"
    before = {path: path.stat().st_mtime_ns for path in data.rglob("blobs/**/data")}
    build(first, context, "--cache-to", word)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("blobs/**/data")} == before


def test_a_cache_that_was_used_is_exported_again_without_its_blobs(
    fresh: Callable[[str], Tierce], context: Path, tmp_path: Path
) -> None:
    caches = [tmp_path / name for name in ("one", "two")]
    build(fresh("first"), context, "--cache-to", f"type=local,dest={caches[0]},mode=max")
    second, third = fresh("second"), fresh("third")
    build(
        second, context, "--cache-from", f"type=local,src={caches[0]}", "--cache-to", f"type=local,dest={caches[1]},mode=max"
    )  # fmt: skip
    names = [{path.name for path in (cache / "blobs" / "sha256").iterdir()} for cache in caches]
    assert len(names[0] & names[1]) >= 6  # layers; the documents tell of other stages
    assert performed(build(third, context, "--cache-from", f"type=local,src={caches[1]}")) == []


@pytest.mark.parametrize("compression", ["zstd", "uncompressed"])
def test_a_cache_in_another_compression(
    fresh: Callable[[str], Tierce], context: Path, tmp_path: Path, compression: str
) -> None:
    cache = tmp_path / "cache"
    build(fresh("first"), context, "--cache-to", f"type=local,dest={cache},mode=max,compression={compression}")
    manifest = json.loads((cache / "index.json").read_bytes())["manifests"][0]["digest"]
    layers = json.loads((cache / "blobs" / manifest.replace(":", "/")).read_bytes())["layers"]
    suffix = "tar+zstd" if compression == "zstd" else "tar"
    assert {one["mediaType"].rpartition(".")[2] for one in layers} == {suffix}
    assert performed(build(fresh("second"), context, "--cache-from", f"type=local,src={cache}")) == []


# Inline


@pytest.mark.parametrize(
    "words", [["--cache-to=type=inline"], ["--build-arg=BUILDKIT_INLINE_CACHE=1"]], ids=["flag", "docker's"]
)
def test_an_image_carries_its_own_cache(
    fresh: Callable[[str], Tierce], context: Path, open_registry: Registry, words: list[str]
) -> None:
    name = open_registry.name("inline:1")
    first, second = fresh("first"), fresh("second")
    build(first, context, "-t", name, "--push", *words)
    said = build(second, context, "-t", "app", "--cache-from", name, *words)
    assert performed(said) == []
    assert image_id(second, "app") == image_id(first, name)


def test_a_pulled_image_serves_without_a_registry(
    fresh: Callable[[str], Tierce], context: Path, tmp_path: Path
) -> None:
    first, second = fresh("first"), fresh("second")
    archive = tmp_path / "app.tar"
    build(first, context, "-t", "app:1", "--cache-to", "type=inline", "-o", f"type=docker,dest={archive}")
    second("load", "--input", archive)
    assert performed(build(second, context, "-t", "again", "--cache-from", "app:1")) == []
    assert made(second, "again") == made(second, "app:1")


def test_docker_runs_an_image_with_an_inline_cache_and_gives_it_back(
    fresh: Callable[[str], Tierce], context: Path, tmp_path: Path, docker: Callable[..., str]
) -> None:
    first, second = fresh("first"), fresh("second")
    archive, back = tmp_path / "app.tar", tmp_path / "back.tar"
    build(first, context, "-t", "inline-app:1", "--cache-to", "type=inline", "-o", f"type=docker,dest={archive}")
    docker("load", "--input", archive)
    docker("run", "--rm", "--network=none", "inline-app:1", "true")
    docker("save", "--output", back, "inline-app:1")
    docker("rmi", "inline-app:1")
    second("load", "--input", back)
    assert performed(build(second, context, "--cache-from", "inline-app:1")) == []


@pytest.mark.parametrize("kind", ["inline", "registry"])
def test_every_platform_has_its_part(
    fresh: Callable[[str], Tierce], tmp_path: Path, open_registry: Registry, kind: str
) -> None:
    context = tmp_path / "programs"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /program\nCOPY amd64 /also\n")
    for name in ("amd64", "arm64"):
        (context / name).write_text(name)
    name, cache = open_registry.name(f"platforms-{kind}:1"), open_registry.name(f"platforms-{kind}:cache")
    to = "type=inline" if kind == "inline" else f"type=registry,ref={cache}"
    platforms = "--platform=linux/amd64,linux/arm64"
    build(fresh("first"), context, platforms, "-t", name, "--push", "--cache-to", to)
    said = build(fresh("second"), context, platforms, "--cache-from", name if kind == "inline" else cache)
    assert performed(said) == []
    assert "[linux/arm64 3/3] COPY amd64 /also" in said


# Cache mounts


def test_a_cache_mount_travels(fresh: Callable[[str], Tierce], context: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    text = (
        "FROM busybox\nARG N\n"
        "RUN --mount=type=cache,target=/c,mode=0711,uid=3 echo $N >> /c/log; ls -ldn /c; cp /c/log /log\n"
    )
    (context / "Dockerfile").write_text(text)
    first, second, third = (fresh(name) for name in ("first", "second", "third"))
    build(first, context, "--build-arg=N=1", "--cache-to", f"type=local,dest={cache},mode=max,mounts=true")
    places = ("--cache-from", f"type=local,src={cache}")
    said = build(second, context, "--build-arg=N=2", "-t", "app", *places)
    assert made(second, "app", "/log") == "1\n2\n"
    assert "drwx--x--x    2 3 " in re.sub(r" +", lambda m: m[0], said)
    # a build that is served from the cache runs nothing, and hands the mount on as it was
    build(third, context, "--build-arg=N=1", *places, "--cache-to", f"type=local,dest={tmp_path / 'on'},mounts=true")
    build(third, context, "--build-arg=N=3", "-t", "app", "--cache-from", f"type=local,src={tmp_path / 'on'}")
    assert made(third, "app", "/log") == "1\n3\n"


# What goes wrong


def test_a_cache_that_is_not_there_is_a_warning(
    fresh: Callable[[str], Tierce], context: Path, tmp_path: Path, open_registry: Registry
) -> None:
    words = ("--cache-from", f"type=local,src={tmp_path / 'none'}", "--cache-from", open_registry.name("no-cache-here"))
    said = build(fresh("first"), context, *words)
    assert said.count("is not used") == 2


def test_a_cache_without_a_blob_does_that_step(fresh: Callable[[str], Tierce], context: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build(fresh("first"), context, "--cache-to", f"type=local,dest={cache}")
    manifest = json.loads((cache / "index.json").read_bytes())["manifests"][0]["digest"]
    layers = json.loads((cache / "blobs" / manifest.replace(":", "/")).read_bytes())["layers"]
    (cache / "blobs" / layers[-1]["digest"].replace(":", "/")).unlink()
    said = build(fresh("second"), context, "--cache-from", f"type=local,src={cache}")
    assert performed(said) == ["RUN echo last > /last"]


def test_a_damaged_blob_fails_the_build_and_leaves_the_store_whole(
    fresh: Callable[[str], Tierce], context: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    build(fresh("first"), context, "--cache-to", f"type=local,dest={cache}")
    for path in (cache / "blobs" / "sha256").iterdir():
        if path.read_bytes()[:2] == b"\x1f\x8b":
            path.write_bytes(path.read_bytes()[:-9] + b"corrupted")
    second = fresh("second")
    failed = second.attempt("build", "--network=none", "--cache-from", f"type=local,src={cache}", context)
    assert failed.code == 1
    assert "digest" in failed.stderr
    second("system", "check")
    assert performed(build(second, context)) != []


@pytest.mark.parametrize("after_s", [0.1, 0.2, 0.3, 0.4, 0.6])
def test_a_kill_at_any_instant_leaves_a_whole_store_and_a_whole_cache(
    fresh: Callable[[str], Tierce], context: Path, tmp_path: Path, after_s: float
) -> None:
    cache, on = tmp_path / "cache", tmp_path / "on"
    build(fresh("first"), context, "--cache-to", f"type=local,dest={cache},mode=max")
    second = fresh("second")
    words = ("--cache-from", f"type=local,src={cache}", "--cache-to", f"type=local,dest={on},mode=max", "-t", "app")
    killed = second.start("build", "--network=none", *words, "-o", str(tmp_path / "out"), context)
    time.sleep(after_s)
    killed.kill()
    killed.communicate(timeout=60)
    second("system", "check")
    assert performed(build(second, context, *words)) == []
    assert performed(build(fresh("third"), context, "--cache-from", f"type=local,src={on}")) == []


@pytest.mark.parametrize(
    ("flag", "word", "problem"),
    [
        ("--cache-to", "type=inline,mode=max", "mode=min alone"),
        ("--cache-to", "type=gha", "type=gha is not supported"),
        ("--cache-to", "type=local", "dest= is missing"),
        ("--cache-to", "type=registry,ref=a,mode=some", "want min or max"),
        ("--cache-to", "type=registry,ref=a,image-manifest=false", "is not supported"),
        ("--cache-to", "type=registry,ref=a,x=1", "unknown attribute 'x'"),
        ("--cache-from", "type=local", "src= is missing"),
        ("--cache-from", "type=nowhere", "unknown type 'nowhere'"),
        ("--cache-from", "type=local,src=/,digest=x", "x"),
    ],
)
def test_what_is_refused(fresh: Callable[[str], Tierce], context: Path, flag: str, word: str, problem: str) -> None:
    failed = fresh("first").attempt("build", "--network=none", flag, word, context)
    assert "Traceback" not in failed.stderr
    assert problem in failed.stderr
    assert failed.code == (1 if "digest=x" not in word else 0)


def test_a_failed_export_fails_unless_it_may(fresh: Callable[[str], Tierce], context: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tierce = fresh("first")
    word = f"type=local,dest={tmp_path}/file/x"
    assert tierce.attempt("build", "--network=none", "--cache-to", word, context).code == 1
    said = build(tierce, context, "--cache-to", f"{word},ignore-error=true")
    assert "cache was not written" in said
