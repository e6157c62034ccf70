"""What RUN sees besides ENV and ARG, and what of it is part of the step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Tierce

pytestmark = pytest.mark.root

SHOW = "FROM busybox\nRUN env | grep -i -e proxy -e EPOCH | sort > /env; hostname > /hostname\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(SHOW)
    return directory


def shown(tierce: Tierce, context: Path, file: str, *options: str) -> str:
    tierce("build", "--network=none", "-t", "x", *options, context)
    return tierce("run", "--rm", "--network=none", "x", "cat", file).stdout


def test_proxies_in_both_spellings_and_not_in_the_cache(tierce_with_busybox: Tierce, context: Path) -> None:
    tierce = tierce_with_busybox
    first = shown(tierce, context, "/env", "--build-arg", "http_proxy=http://one", "--build-arg", "NO_PROXY=two")
    assert first.splitlines() == [
        "HTTP_PROXY=http://one",
        "NO_PROXY=two",
        "http_proxy=http://one",
        "no_proxy=two",
    ]
    assert shown(tierce, context, "/env", "--build-arg", "HTTP_PROXY=http://other") == first, "served from the cache"
    assert "proxy" not in tierce("history", "--no-trunc", "x").stdout.replace("grep -i -e proxy", "").lower()


def test_the_hostname_is_an_argument_and_part_of_the_step(tierce_with_busybox: Tierce, context: Path) -> None:
    plain = shown(tierce_with_busybox, context, "/hostname")
    assert plain == "tierce-build\n"
    named = shown(tierce_with_busybox, context, "/hostname", "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=host.example")
    assert named == "host.example\n"


def test_the_time_of_the_environment_is_an_argument_if_it_is_declared(
    tierce_with_busybox: Tierce, context: Path
) -> None:
    tierce = Tierce(tierce_with_busybox.root, {"SOURCE_DATE_EPOCH": "1700000000"})
    assert shown(tierce, context, "/env") == ""
    (context / "Dockerfile").write_text(SHOW.replace("\n", "\nARG SOURCE_DATE_EPOCH\n", 1))
    assert shown(tierce, context, "/env") == "SOURCE_DATE_EPOCH=1700000000\n"
    assert "not consumed" not in tierce("build", "--network=none", context).stderr


@pytest.mark.parametrize(
    ("global_arg", "options", "created"),
    [
        ("ARG SOURCE_DATE_EPOCH=1000000000", (), "2001-09-09T01:46:40Z"),
        ("ARG SECONDS=1000000000\nARG SOURCE_DATE_EPOCH=$SECONDS", (), "2001-09-09T01:46:40Z"),
        ("ARG SOURCE_DATE_EPOCH=1", ("--build-arg", "SOURCE_DATE_EPOCH=1000000000"), "2001-09-09T01:46:40Z"),
        ("ARG SOURCE_DATE_EPOCH=1", ("--build-arg", "SECONDS=3"), "1970-01-01T00:00:01Z"),
    ],
    ids=["a default", "computed", "the argument wins", "another argument"],
)
def test_the_file_itself_may_set_the_time(
    tierce: Tierce, context: Path, global_arg: str, options: tuple[str, ...], created: str
) -> None:
    (context / "Dockerfile").write_text(f"{global_arg}\nFROM scratch\nENV A=1\n")
    tierce("build", "-t", "x", *options, context)
    assert tierce("inspect", "--format", "{{.Created}}", "x").stdout == f"{created}\n"


def test_an_empty_argument_takes_the_time_away(tierce: Tierce, context: Path) -> None:
    (context / "Dockerfile").write_text("ARG SOURCE_DATE_EPOCH=1\nFROM scratch\nENV A=1\n")
    tierce("build", "-t", "x", "--build-arg", "SOURCE_DATE_EPOCH=", context)
    assert not tierce("inspect", "--format", "{{.Created}}", "x").stdout.startswith("1970")


def test_a_time_that_is_none(tierce: Tierce, context: Path) -> None:
    (context / "Dockerfile").write_text("ARG SOURCE_DATE_EPOCH=noon\nFROM scratch\nENV A=1\n")
    failed = tierce.attempt("build", context)
    assert failed.code == 1
    assert "invalid SOURCE_DATE_EPOCH: noon" in failed.stderr
