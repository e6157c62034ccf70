"""``build --check`` and ``--call``: what a Dockerfile says, without a build."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from image.config import ContainerConfig
from image.errors import InvalidInput
from image.platform import Platform
from tests.support.fake_registry import FakeRegistry, fake_registry
from tests.support.tiny_image import ARM64, tiny_image
from tests.tierce.conftest import Stock
from tierce.cli.build_call import parse_call

Invoke = Callable[..., tuple[int, str, str]]

CLEAN = 'FROM scratch\nCOPY a /\nCMD ["/a"]\n'
DOUBTFUL = "FROM scratch AS Base\nFROM scratch\nMAINTAINER me\nENV A=$UNKNOWN\n"
EVERY_STAGE = """\
# APP is built
ARG APP=site:1
# base has the tools
FROM busybox AS base
RUN --mount=type=secret,id=token,required x
FROM base
ARG APP
ARG LEVEL=2
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def write(context: Path, text: str) -> Path:
    (context / "Dockerfile").write_text(text)
    return context


def test_a_clean_file(invoke: Invoke, context: Path) -> None:
    assert invoke("build", "--check", str(write(context, CLEAN))) == (0, "Check complete, no warnings found.\n", "")


def test_warnings_are_shown_with_their_lines(invoke: Invoke, context: Path) -> None:
    code, out, _ = invoke("build", "--check", str(write(context, DOUBTFUL)))
    assert code == 1
    assert (
        out
        == """\
Check complete, 3 warnings have been found!

WARNING: StageNameCasing
Stage name 'Base' should be lowercase
Dockerfile:1
--------------------
   1 | >>> FROM scratch AS Base
   2 |     FROM scratch
   3 |     MAINTAINER me
   4 |     ENV A=$UNKNOWN
--------------------

WARNING: MaintainerDeprecated
Maintainer instruction is deprecated in favor of using label
Dockerfile:3
--------------------
   1 |     FROM scratch AS Base
   2 |     FROM scratch
   3 | >>> MAINTAINER me
   4 |     ENV A=$UNKNOWN
--------------------

WARNING: UndefinedVar
Usage of undefined variable '$UNKNOWN'
Dockerfile:4
--------------------
   1 |     FROM scratch AS Base
   2 |     FROM scratch
   3 |     MAINTAINER me
   4 | >>> ENV A=$UNKNOWN
--------------------
"""
    )


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ((), ["MaintainerDeprecated", "UndefinedVar"]),
        (("--target", "b"), ["MaintainerDeprecated", "UndefinedVar"]),
        (("--target", "a"), ["MaintainerDeprecated"]),
        (("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=UndefinedVar"), ["MaintainerDeprecated"]),
        (("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"), []),
    ],
    ids=["every stage", "that target", "another target", "one check off", "all off"],
)
def test_which_warnings(invoke: Invoke, context: Path, options: tuple[str, ...], rules: list[str]) -> None:
    write(context, "FROM scratch AS a\nMAINTAINER x\nFROM a AS b\nENV A=$UNKNOWN\n")
    code, out, _ = invoke("build", "--call", "check,format=json", *options, str(context))
    found = json.loads(out)["warnings"]
    assert [warning["ruleName"] for warning in found] == rules
    assert code == (1 if rules else 0)
    assert all(warning["location"]["ranges"][0]["start"]["line"] in {2, 4} for warning in found)


def test_a_copied_file_that_is_ignored(invoke: Invoke, context: Path) -> None:
    (context / ".dockerignore").write_text("secret\n")
    code, out, _ = invoke("build", "--check", str(write(context, "FROM scratch\nCOPY secret /\n")))
    assert code == 1
    assert 'Attempting to Copy file "secret" that is excluded by .dockerignore' in out


def test_what_an_image_of_the_store_sets_is_defined(invoke: Invoke, stock: Stock, context: Path) -> None:
    stock.add("base", config=ContainerConfig(env=("FROM_BASE=1",)))
    code, out, _ = invoke("build", "--check", str(write(context, "FROM base\nENV A=$FROM_BASE B=$FROM_BAS\n")))
    assert code == 1
    assert "Usage of undefined variable '$FROM_BAS' (did you mean $FROM_BASE?)" in out
    assert "1 warning has been found!" in out


def test_an_image_that_nobody_has_may_define_anything(invoke: Invoke, context: Path) -> None:
    write(context, "FROM 127.0.0.1:1/absent\nENV A=$ANYTHING\nWORKDIR rel\n")
    code, out, _ = invoke("build", "--check", str(context))
    assert code == 1
    assert "UndefinedVar" not in out
    assert "WorkdirRelativePath" in out


def put(fake: FakeRegistry, platform: Platform) -> str:
    image = tiny_image(platform=platform)
    fake.blobs.update(image.blobs)
    fake.manifests["base", "1"] = (image.manifest.media_type, image.manifest.raw)
    return f"{fake.host}/base:1"


def test_a_configuration_is_fetched_only_when_it_matters_and_nothing_else_is(
    invoke: Invoke, stock: Stock, context: Path
) -> None:
    with fake_registry() as fake:
        name = put(fake, ARM64)
        assert invoke("build", "--check", str(write(context, f"FROM {name}\nENV A=1\n")))[0] == 0
        assert fake.requests == []
        code, out, _ = invoke("build", "--check", str(write(context, f"FROM {name}\nENV A=$UNKNOWN\n")))
        assert code == 1
        assert "Usage of undefined variable '$UNKNOWN'" in out
        assert f'Base image {name} was pulled with platform "linux/arm64", expected "linux/amd64"' in out
        fetched = [seen.path for seen in fake.requests if "/blobs/" in seen.path]
        assert len(fetched) == 1, "the configuration, no layer"
    assert invoke("images", "-q")[1] == ""


def test_outline(invoke: Invoke, context: Path) -> None:
    code, out, _ = invoke("build", "--call=outline", "--build-arg", "LEVEL=3", str(write(context, EVERY_STAGE)))
    assert code == 0
    assert (
        out
        == """\
BUILD ARG   VALUE    DESCRIPTION
APP         site:1   is built
LEVEL       3

SECRET   REQUIRED
token    true
"""
    )


def test_outline_of_a_described_stage(invoke: Invoke, context: Path) -> None:
    _, out, _ = invoke("build", "--call=outline", "--target=base", str(write(context, EVERY_STAGE)))
    assert out.startswith("TARGET:        base\nDESCRIPTION:   has the tools\n")


def test_outline_as_json(invoke: Invoke, context: Path) -> None:
    _, out, _ = invoke("build", "--call=outline,format=json", "--target=base", str(write(context, EVERY_STAGE)))
    assert json.loads(out) == {
        "name": "base", "description": "has the tools", "secrets": [{"name": "token", "required": True}],
    }  # fmt: skip


def test_targets(invoke: Invoke, context: Path) -> None:
    code, out, _ = invoke("build", "--call=targets", str(write(context, EVERY_STAGE)))
    assert code == 0
    assert (
        out
        == """\
TARGET      BASE      DESCRIPTION
base        busybox   has the tools
(default)   base
"""
    )


def test_targets_as_json(invoke: Invoke, context: Path) -> None:
    _, out, _ = invoke("build", "--call=targets,format=json", str(write(context, EVERY_STAGE)))
    assert [(t.get("name"), t["base"], t.get("default")) for t in json.loads(out)] == [
        ("base", "busybox", None),
        (None, "base", True),
    ]


@pytest.mark.parametrize("call", ["check", "outline", "targets"])
def test_a_broken_file_is_shown(invoke: Invoke, context: Path, call: str) -> None:
    code, out, err = invoke("build", f"--call={call}", str(write(context, "FROM a\nRUM x\n")))
    assert (code, out) == (1, "")
    assert "   2 | >>> RUM x" in err
    assert "unknown instruction: RUM (did you mean RUN?)" in err


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("build", ("build", "text")), ("lint", ("check", "text")), ("CHECK", ("check", "text")),
        ("outline,format=json", ("outline", "json")), ("targets,format=text", ("targets", "text")),
    ],
)  # fmt: skip
def test_calls(text: str, parsed: tuple[str, str]) -> None:
    assert parse_call(text) == parsed


@pytest.mark.parametrize("text", ["outlines", "outline,format=xml", "check,json", ",format=json,x"])
def test_invalid_calls(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid --call"):
        parse_call(text)


def test_an_ignore_file_by_name(invoke: Invoke, context: Path, tmp_path: Path) -> None:
    (context / ".dockerignore").write_text("")
    named = tmp_path / "ignored"
    named.write_text("secret\n")
    write(context, "FROM scratch\nCOPY secret /\n")
    assert invoke("build", "--check", str(context))[0] == 0
    code, out, _ = invoke("build", "--check", "--ignorefile", str(named), str(context))
    assert code == 1
    assert "CopyIgnoredFile" in out
    code, _, err = invoke("build", "--check", "--ignorefile", str(tmp_path / "absent"), str(context))
    assert code == 1
    assert f"ignore file {tmp_path / 'absent'} does not exist" in err
