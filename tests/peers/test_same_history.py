"""The history of an image: what docker's BuildKit tells of each instruction, Tierce tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.peers.test_same_build import built_by_docker, built_by_tierce
from tests.support.cli import Tierce
from tests.support.context import File, write_context
from tests.support.dockerd import Docker

pytestmark = [pytest.mark.root, pytest.mark.peer]

ONE_OF_EACH = """\
ARG GLOBAL=g
FROM busybox
ARG A=1
ARG B
ARG GLOBAL
ENV X=a Y='b  c' Z=
ENV legacy two words
LABEL a=b "c d"="e f"
RUN true
RUN ["/bin/true", "a b"]
SHELL ["/bin/sh", "-e", "-c"]
RUN true \\
    && true
WORKDIR /w
WORKDIR sub
WORKDIR /
COPY one two /d/
COPY --chown=1:2 one /e
COPY ["one", "/with space"]
ADD one /added
USER 1:2
EXPOSE 80 90/udp
VOLUME /v /w
VOLUME ["/x"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=1m30s --retries=3 CMD true
HEALTHCHECK NONE
ENTRYPOINT ["/bin/echo", "a\\"b"]
ENTRYPOINT x
CMD ["a", "b c"]
CMD shell form
ONBUILD RUN later
MAINTAINER me <me@example.com>
"""
ARGUMENTS = """\
FROM busybox AS base
ARG A=1
RUN true a
ARG B
ENV C=env
FROM base
ARG C
RUN true b
ARG A=2
RUN true c
"""
TRIGGERS = """\
FROM busybox AS base
ONBUILD ARG T=1
ONBUILD COPY one /
ONBUILD RUN true $T
FROM base
RUN true
"""
OLDER_FORMS = {
    "ARG B": "ARG B=given",  # the value that was given, or imported, is told since BuildKit 0.12
    "ARG GLOBAL": "ARG GLOBAL=g",
    "COPY one /e # buildkit": "COPY --chown=1:2 one /e # buildkit",  # flags are told since BuildKit 0.11
    "EXPOSE map[80/tcp:{} 90/udp:{}]": "EXPOSE [80/tcp 90/udp]",
    'HEALTHCHECK &{["CMD-SHELL" "true"] "1m30s" "0s" "0s" \'\\x03\'}':
        "HEALTHCHECK {Test:[CMD-SHELL true] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}",
    'HEALTHCHECK &{["NONE"] "0s" "0s" "0s" \'\\x00\'}':
        "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
    # A stage's arguments go on in its children since BuildKit 0.15.
    "RUN |1 C=env /bin/sh -c true b # buildkit": "RUN |3 A=1 B=given C=env /bin/sh -c true b # buildkit",
    "RUN |2 C=env A=2 /bin/sh -c true c # buildkit": "RUN |3 A=2 B=given C=env /bin/sh -c true c # buildkit",
}  # fmt: skip
"""What docker 20.10 tells otherwise than BuildKit does today; Tierce tells it as BuildKit today."""


def history_of(document: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(entry.get("created_by", ""), entry.get("empty_layer", False)) for entry in document["history"]]


def compared(
    dockerfile: str, docker: Docker, tierce: Tierce, directory: Path, *options: str
) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    files = {"Dockerfile": File(dockerfile), "one": File("1"), "two": File("2")}
    context = write_context(directory / "context", files)
    theirs = built_by_docker(docker, context, directory / "theirs.tar", *options)
    ours = built_by_tierce(tierce, context, directory / "ours.tar", *options)
    return history_of(theirs.config), history_of(ours.config)


@pytest.mark.parametrize(
    "dockerfile",
    [
        pytest.param(ONE_OF_EACH, id="one of each"),
        pytest.param(ARGUMENTS, id="arguments across stages"),
        pytest.param(TRIGGERS, id="triggers of a stage"),
    ],
)
def test_same_history_as_docker(dockerfile: str, docker: Docker, tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    theirs, ours = compared(dockerfile, docker, tierce_with_busybox, tmp_path, "--build-arg", "B=given")
    assert ours == [(OLDER_FORMS.get(told, told), empty) for told, empty in theirs]


def test_same_history_of_an_image_with_triggers(docker: Docker, tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    """Without a trigger that needs one more stage, which docker 20.10 can't do."""
    parent = write_context(tmp_path / "parent", {"Dockerfile": File(TRIGGERS.partition("FROM base")[0])})
    docker.build("parent", parent)
    tierce_with_busybox("build", "--quiet", "--network=host", "--tag", "parent", parent)
    theirs, ours = compared("FROM parent\nRUN true\n", docker, tierce_with_busybox, tmp_path)
    assert ours == theirs
    assert ("RUN |1 T=1 /bin/sh -c true $T # buildkit", False) in ours
