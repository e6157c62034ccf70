"""Warnings of a real build: where they are shown, and when they fail it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from builder.progress import StepDone, StepStarted, Warned
from image.span import Span
from tests.support.cli import Tierce
from tests.support.fake_registry import fake_registry
from tests.support.tiny_image import ARM64, tiny_image
from tierce.cli.build_progress import JsonView, PlainView, QuietView, TerminalView, View

WARNED = Warned("SomeRule", "something is doubtful", Span("Dockerfile", 2, 2), "Dockerfile:2\n---\n   2 | >>> X")
BARE = Warned("", "one or more build-args [x] were not consumed", None)
LIST = """
 2 warnings found:
 - SomeRule: something is doubtful (line 2)
Dockerfile:2
---
   2 | >>> X
 - one or more build-args [x] were not consumed
"""


def shown(make: type[PlainView | QuietView | JsonView]) -> str:
    stream = io.StringIO()
    feed(make(stream))
    return stream.getvalue()


def feed(view: View) -> None:
    with view:
        view(WARNED)
        view(BARE)
        view(WARNED)  # as for a second platform
        view(StepStarted("s", "[1/1] FROM x", 0.0))
        view(StepDone("s", "[1/1] FROM x", 1.0))


def test_plain_progress_lists_them_at_the_end() -> None:
    assert shown(PlainView).endswith("#1 DONE 1.0s\n\n" + LIST)


def test_a_terminal_lists_them_at_the_end() -> None:
    stream = io.StringIO()
    feed(TerminalView(stream, lambda: 1.0))
    assert stream.getvalue().rpartition("\x1b[?25h")[2] == LIST


def test_quiet_progress_keeps_them_to_itself() -> None:
    assert shown(QuietView) == ""


def test_raw_progress_has_them_as_they_come() -> None:
    assert '"event": "Warned", "rule": "SomeRule"' in shown(JsonView).splitlines()[0]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\nMAINTAINER me\nENV A=$UNKNOWN\nARG USED\n")
    return directory


@pytest.mark.root
def test_a_build_warns_and_succeeds(tierce: Tierce, context: Path) -> None:
    done = tierce("build", "--build-arg=USED=1", "--build-arg=OTHER=1", "--build-arg=BUILDKIT_INLINE_CACHE=1", context)
    assert " 3 warnings found:\n - MaintainerDeprecated: " in done.stderr
    assert " - UndefinedVar: Usage of undefined variable '$UNKNOWN' (line 3)\nDockerfile:3\n" in done.stderr
    assert " - one or more build-args [OTHER] were not consumed\n" in done.stderr


@pytest.mark.root
@pytest.mark.parametrize(
    ("directive", "options", "code"),
    [
        ("# check=error=true\n", (), 1),
        ("# check=skip=all;error=true\n", (), 0),
        ("", ("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"), 1),
        ("# check=error=true\n", ("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=false"), 0),
        ("# check=nonsense\n", (), 1),
    ],
    ids=["the file", "nothing is wanted", "the argument", "the argument wins", "a wrong option"],
)
def test_warnings_can_fail_a_build(
    tierce: Tierce, context: Path, directive: str, options: tuple[str, ...], code: int
) -> None:
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(directive + dockerfile.read_text())
    done = tierce.attempt("build", "-t", "result", *options, context)
    assert done.code == code
    built = tierce("images", "-q").stdout != ""
    assert built == (code == 0)
    if "nonsense" in directive:
        assert 'invalid check option "nonsense"' in done.stderr
    elif code:
        assert done.stderr.endswith("lint violation found for rules: MaintainerDeprecated, UndefinedVar\n")
        assert " 2 warnings found:\n" in done.stderr


@pytest.mark.root
def test_only_reachable_stages_are_looked_at(tierce: Tierce, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch AS unused\nMAINTAINER me\nFROM scratch\nENV A=$UNKNOWN\n")
    stderr = tierce("build", context).stderr
    assert "UndefinedVar" in stderr
    assert "MaintainerDeprecated" not in stderr


@pytest.mark.root
def test_a_base_image_of_another_platform_is_taken_with_a_warning(tierce: Tierce, context: Path) -> None:
    image = tiny_image(platform=ARM64)
    with fake_registry() as fake:
        fake.blobs.update(image.blobs)
        fake.add_manifest("base", "1", image.manifest)
        name = f"{fake.host}/base:1"
        (context / "Dockerfile").write_text(f"FROM {name}\nENV A=1\n")
        first, second = tierce("build", context), tierce("build", "--pull", context)
    wanted = f'InvalidBaseImagePlatform: Base image {name} was pulled with platform "linux/arm64"'
    assert wanted in first.stderr
    assert wanted in second.stderr


@pytest.mark.root
def test_the_cache_of_named_stages_is_not_used(tierce_with_busybox: Tierce, context: Path) -> None:
    tierce = tierce_with_busybox
    text = "FROM busybox AS one\nRUN true one\nFROM busybox AS Two\nRUN true two\nFROM one\nCOPY --from=two /etc/passwd /\n"
    (context / "Dockerfile").write_text(text)
    arguments = ("build", "--network=none", "--progress=plain", context)
    tierce(*arguments)
    assert tierce(*arguments).stderr.count("CACHED") == 4
    done = tierce(*arguments, "--no-cache-filter", "x,tWO")
    lines = done.stderr.splitlines()
    cached = {lines[number - 1].partition(" ")[2] for number, line in enumerate(lines) if line.endswith("CACHED")}
    assert "[one 2/2] RUN true one" in cached
    assert "[two 2/2] RUN true two" not in cached


@pytest.mark.root
def test_build_arguments_of_a_file(tierce: Tierce, context: Path, tmp_path: Path) -> None:
    given = tmp_path / "args"
    given.write_text("# defaults\n\nA=file\n  B=file\nHOST_VALUE\nUNSET_THERE\n")
    (context / "Dockerfile").write_text("FROM scratch\nARG A\nARG B\nARG HOST_VALUE\nLABEL l=$A-$B-$HOST_VALUE\n")
    caller = Tierce(tierce.root, {"HOST_VALUE": "host"})
    caller("build", "-t", "x", "--build-arg-file", given, "--build-arg", "A=command", context)
    assert caller("inspect", "--format", "{{.Config.Labels.l}}", "x").stdout == "command-file-host\n"
    failed = caller.attempt("build", "--build-arg-file", tmp_path / "absent", context)
    assert f"read build args from {tmp_path / 'absent'}: no such file or directory" in failed.stderr
