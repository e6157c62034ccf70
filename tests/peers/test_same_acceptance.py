"""Odd Dockerfiles: what docker takes, Tierce takes to the same image; what docker refuses, Tierce refuses.

Left out is where BuildKit has changed since docker 20.10, and Tierce is as BuildKit today: text
after a JSON array makes it shell form; a health check's interval or retries may be 0; RUN has
``--network``; an empty ``--platform`` is an error; mount points do not stay in layers. Left out
is also what Tierce refuses on purpose, see docs/dockerfile.md, and a file without any stage,
which ends docker 20.10's daemon.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.test_same_build import built_by_docker, built_by_tierce
from tests.support.cli import Tierce
from tests.support.compare import differences
from tests.support.context import File, write_context
from tests.support.dockerd import Docker

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.slow]

BODIES = [
    "RUN", "RUN []", "CMD", "CMD []", "ENTRYPOINT", "ENTRYPOINT []", 'CMD ["a"', "CMD ['a']",
    "EXPOSE 0", "EXPOSE $X", "EXPOSE 65536", "EXPOSE 80/TCP", "EXPOSE 1.2.3.4:5:6", "EXPOSE 5:6/udp", "EXPOSE 5-3",
    "EXPOSE a", "EXPOSE 1-3:4-6", "EXPOSE 80/sctp", "EXPOSE 80/x",
    "VOLUME ['a']", "VOLUME []", 'VOLUME [""]', 'VOLUME ""', "VOLUME a b",
    "USER $X", "USER ''", "USER 'a b'", "USER a b", "WORKDIR $X", "WORKDIR 'a b'", "WORKDIR a b", "WORKDIR /a//b/../c/",
    "WORKDIR a//b/../c/", "STOPSIGNAL 0", "STOPSIGNAL 99", "STOPSIGNAL sigterm", "STOPSIGNAL TERM", "STOPSIGNAL X",
    "STOPSIGNAL RTMIN+3", "STOPSIGNAL $X", 'SHELL ["a"]', "SHELL a", "SHELL []", 'SHELL [""]',
    "HEALTHCHECK NONE", "HEALTHCHECK none", "HEALTHCHECK NONE x", "HEALTHCHECK CMD", "HEALTHCHECK CMD []",
    'HEALTHCHECK CMD ["a"', "HEALTHCHECK --interval=1us CMD a",
    "HEALTHCHECK --interval=1.5h2m CMD a", "HEALTHCHECK --retries=x CMD a",
    "HEALTHCHECK --interval=1s NONE", "HEALTHCHECK --nope=1 CMD a",
    "LABEL a", "LABEL a=", "LABEL a=b c", "LABEL a b=c", "LABEL 'a b'='c d'", "LABEL =x", 'LABEL ""=x', "LABEL a=b a=c",
    "ENV a", "ENV a=", "ENV a b  c ", "ENV a=b c", "ENV a=b\\ c d=e", "ENV a='b", "ENV 'a'=b", "ENV a=$a$b",
    "ENV a=${b", "ENV a=${b:-c d}", 'ENV a="${b:-c d}"', "ENV a=\\$b", "ENV a='$b'", "ENV a=${b:+c}", "ENV a=${b:?}",
    "ENV PATH=x", "ENV a=b=c", "ENV a=#b", "ENV a=b # c", "ENV a=b #c=d",
    "ARG", "ARG a b=c", "ARG a=b c d='e f'", "ARG =a", "ARG a=${a:?x}", "ARG A-B=1", "ARG a='",
    "ONBUILD", "ONBUILD RUN x", "ONBUILD onbuild RUN x", "ONBUILD FROM x", "ONBUILD  COPY  a   b ",
    "MAINTAINER", "MAINTAINER a  b $X", "maintainer 'x'", "NOPE", "COPY one", "COPY one ''", "COPY one $X", "COPY",
    "COPY --from= one /d", "COPY --nope one /d", "COPY --chown one /d", "COPY --chown=1 --chown=2 one /d",
    "COPY [\"one\", \"/d\"]", "COPY [\"one\"]", "COPY -- one /d", "COPY one /d # x",
    "ADD one /d/ ", "RUN --network=nope true", "RUN --nope true", "RUN --mount=type=x true",
    "RUN --mount=type=tmpfs true", "RUN --mount=target=/ true",
    "RUN # comment", "# only a comment", "RUN true \\", "RUN true \\\n\n  && true", "RUN true \\\n# c\n  && true",
]  # fmt: skip
FILES = [
    "FROM --platform= busybox", "FROM --platform=nope/nope/nope/nope busybox",
    "FROM --platform=linux busybox", "FROM busybox AS", "FROM busybox as 1", "FROM busybox AS a.b-c_1", "FROM busybox AS a/b",
    "FROM busybox x", "FROM busybox:", "FROM Busybox", "FROM busybox@sha256:1", "FROM ''", "FROM $X", "FROM ${X:-busybox}",
    'FROM "busybox"', "FROM busybox\nFROM 0", "FROM busybox AS a\nFROM A", "FROM busybox AS A\nFROM a",
    "FROM busybox AS a\nFROM busybox\nCOPY --from=A /etc/passwd /p", "FROM busybox\nCOPY --from=0 /a /a",
    "FROM busybox\nCOPY --from=1 /a /a", "FROM busybox\nCOPY --from=b /a /a\nFROM busybox AS b",
    "FROM busybox AS a\nFROM busybox AS a\nRUN true\nFROM a",
    "ARG A=busybox\nARG B=$A\nFROM $B", "ARG A=busybox\nFROM $A\nENV B=$A", "ARG A\nFROM ${A:-busybox}", "ARG A=bus\nFROM ${A}ybox",
    "ENV A=1\nFROM busybox", "\n\n# c\n\nFROM busybox", "\ufeffFROM busybox", "FROM busybox\r\nENV A=b\r\n",
    "# escape=`\nFROM busybox\nENV A=a`\n b=c B=\\", "# escape=\\\nFROM busybox", "# escape=x\nFROM busybox",
    "# Escape = `\nFROM busybox\nENV A=`$x", "#escape=`\n#escape=`\nFROM busybox", "# c\n# escape=`\nFROM busybox\nENV A=`$x",
    "from busybox\nenv a=b", "FROM busybox\n  ENV  a=b", "FROM busybox\n\tENV\ta=b\t", "FROM busybox\nENV a=b\\\n", " ",
]  # fmt: skip


def shown(text: str) -> str:
    return repr(text)[1:-1]


@pytest.mark.parametrize("dockerfile", [*(f"FROM busybox\n{body}\n" for body in BODIES), *FILES], ids=shown)
def test_same_verdict_and_image(dockerfile: str, docker: Docker, tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", {"Dockerfile": File(dockerfile), "one": File("1")})
    theirs = docker.exit_code("build", "--network=host", "--tag", "compared", context)
    ours = tierce_with_busybox.attempt("build", "--network=host", context)
    assert docker.exit_code("version") == 0, "a verdict needs a living judge"
    assert (ours.code == 0) == (theirs == 0), str(ours)
    assert "internal error" not in ours.stderr
    if theirs == 0:
        left = built_by_docker(docker, context, tmp_path / "theirs.tar")
        right = built_by_tierce(tierce_with_busybox, context, tmp_path / "ours.tar")
        assert differences(left, right) == []
