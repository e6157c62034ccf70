"""Dockerfiles, each with its context, that every builder must turn into the same image."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.support.context import Directory, Entry, File, Symlink


@dataclass(frozen=True, slots=True)
class Case:
    """One Dockerfile with the files it copies. ``options`` go to the build command, with CONTEXT replaced.

    The judge is docker, except where its BuildKit is known to be wrong in Debian's version
    of docker: a reason is beside the case.
    """

    name: str
    dockerfile: str
    context: Mapping[str, Entry] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    judge: Literal["docker", "buildah"] = "docker"

    def flags(self, context: Path) -> tuple[str, ...]:
        return tuple(word.replace("CONTEXT", str(context)) for word in self.options)

    def entries(self) -> dict[str, Entry]:
        """The whole context, Dockerfile included."""
        return {"Dockerfile": File(textwrap.dedent(self.dockerfile)), **self.context}


_TREE: dict[str, Entry] = {
    "app/run.sh": File("#!/bin/sh\necho run\n", 0o755),
    "app/secret": File("s\n", 0o600),
    "app/tool": File("t\n", 0o4755),
    "app/group": File("g\n", 0o2750),
    "app/closed": Directory(0o700),
    "app/closed/in": File("i\n", 0o640),
    "app/empty": Directory(0o1777),
    "app/late": Symlink("run.sh"),
    "app/dangling": Symlink("/absent/target"),
    "one.txt": File("1\n"),
    "two.txt": File("2\n"),
}

CASES = (
    Case(
        "copy-modes",
        """\
        FROM busybox
        COPY app /whole
        COPY app/ /into/there/
        COPY app/secret /renamed
        COPY app/tool app/group /tools/
        COPY one.txt /etc
        COPY . .
        """,
        _TREE,
    ),
    Case(
        "copy-wildcards",
        """\
        FROM busybox
        COPY *.txt /all/
        COPY o?e.txt /single
        COPY app/[rs]* /ranges/
        COPY ["one.txt", "with space", "/json/"]
        """,
        {**_TREE, "with space": File("w\n")},
    ),
    Case(
        "copy-chown",
        """\
        FROM busybox
        ARG OWNER=www-data
        COPY --chown=33 app /by-uid
        COPY --chown=33:8 one.txt /by-both
        COPY --chown=www-data one.txt /new/by-name
        COPY --chown=$OWNER:mail app/ /new/by-names/
        USER www-data
        COPY one.txt /not-the-user
        """,
        _TREE,
    ),
    Case(  # into directories that exist: for new ones docker 20.10 differs from later versions
        "copy-chmod",
        """\
        FROM busybox
        RUN mkdir /tree
        COPY --chmod=750 app /tree
        COPY --chmod=0604 one.txt /etc/renamed
        COPY --chmod=0421 --chown=33:8 one.txt app/note /tmp/
        """,
        {"app/run": File(mode=0o755), "app/note": File(mode=0o600), "app/link": Symlink("run"), "one.txt": File()},
    ),
    Case(
        "copy-over",
        """\
        FROM busybox
        RUN mkdir -m 700 /kept && echo old > /kept/one.txt && chown 33:33 /kept \\
            && mkdir /real && ln -s /real /link && ln -s /real/target /file-link
        COPY one.txt two.txt /kept/
        COPY app /link/
        COPY one.txt /file-link
        COPY app /kept/
        """,
        _TREE,
    ),
    Case(  # docker 20.10 loses extended attributes on their way to the daemon
        "copy-xattrs",
        """\
        FROM busybox
        COPY noted /plain
        COPY noted /in/a/directory/
        """,
        {"noted": File("n\n", xattrs={"user.note": "a value"})},
        judge="buildah",
    ),
    Case(
        "copy-follows-links",
        """\
        FROM busybox
        COPY link-to-file /file
        COPY link-to-directory /directory
        COPY holder /holder
        """,
        {
            **_TREE,
            "link-to-file": Symlink("one.txt"),
            "link-to-directory": Symlink("app"),
            "holder/link-to-file": Symlink("../one.txt"),
            "holder/link-to-directory": Symlink("../app"),
        },
    ),
    Case(
        "ignore-file",
        """\
        FROM busybox
        COPY . /context/
        """,
        {
            **_TREE,
            ".dockerignore": File("# what is left out\n*.txt\n!two.txt\napp/closed\n**/*.log\n/deep/*/x\nDockerfile\n"),
            "a.log": File(),
            "deep/er/a.log": File(),
            "deep/er/x": File(),
            "deep/er/y": File(),
            "deep/x": File(),
        },
    ),
    Case(
        "multi-stage",
        """\
        ARG BASE=busybox
        FROM ${BASE} AS build
        WORKDIR /out
        RUN echo made > file && chmod 4750 file && chown 33:8 file && ln file hard && ln -s file soft
        FROM build AS more
        RUN echo more > more && rm file
        FROM ${BASE}:latest
        COPY --from=build /out /tree
        COPY --from=build /out/soft /followed
        COPY --from=1 /out/m* /by-number/
        COPY --from=build --chown=daemon:daemon /out/file /owned
        COPY --from=build /bin/b?sybox /etc/passwd /several/
        """,
    ),
    Case(
        "target-stage",
        """\
        FROM busybox AS wanted
        RUN echo wanted > /wanted
        FROM busybox
        RUN exit 1
        """,
        options=("--target", "wanted"),
    ),
    Case(
        "scratch",
        """\
        FROM scratch
        COPY app /app
        COPY one.txt /
        ENV A=b
        CMD ["/app/run.sh"]
        """,
        _TREE,
    ),
    Case(
        "run-changes",
        """\
        FROM busybox
        RUN mkdir -p /d/s /e && touch /d/a /d/b /d/s/c /e/x && ln /d/a /d/hard
        RUN rm /d/a && rm -r /d/s && mkdir /d/s && touch /d/s/new && rm -r /e && touch /e
        RUN rm /bin/vi && chmod 6755 /d/b && chown 33:33 /d/b && chmod 3770 /d && mknod /null c 1 3 && mkfifo -m 600 /f
        RUN ["/bin/sh", "-c", "echo $0 > /exec-form", "zero"]
        RUN umask 077; touch /private; mkdir /private-dir; ln -s nowhere /dangling
        RUN touch -h -d 2001-02-03 /dangling /private 2>/dev/null || touch -d '2001-02-03 04:05' /private
        """,
    ),
    Case(  # without `id -G`: docker 20.10 leaves the primary group out of the supplementary ones
        "run-environment",
        """\
        FROM busybox
        ARG WITH=default
        ARG WITHOUT
        ENV SEEN="a b" PATH=/opt:$PATH
        WORKDIR /work/dir
        USER www-data:mail
        RUN ["sh", "-c", "env | grep -v -e ^HOSTNAME= | sort > /tmp/env; id -u > /tmp/uid; id -g > /tmp/gid; pwd > /tmp/pwd; umask > /tmp/umask"]
        USER 1234
        RUN id -u > /tmp/number; id -g >> /tmp/number
        """,
        options=("--build-arg", "WITH=given"),
    ),
    Case(
        "words",
        """\
        # a comment first
        FROM busybox
        ARG A=1
        ENV B=${A}2 C='$A' D="$A" E=${UNSET:-fall} F=${A:+there} G=\\$A
        ENV H some value with $B
        ENV I=${B}x \\
            # in between
            J="two  spaces" K=esc\\ aped

        LABEL plain=1 "quoted key"="quoted \\"value\\"" multi="a \\
        b" from=$B
        WORKDIR /one
        WORKDIR two/../three
        WORKDIR $A
        COPY one.txt ${B:-no}/
        """,
        _TREE,
    ),
    Case(
        "command-shell-form",
        """\
        FROM busybox
        ENTRYPOINT echo $HOME
        CMD ignored by it
        """,
    ),
    Case(
        "command-reset",
        """\
        FROM busybox AS base
        CMD ["one"]
        FROM base
        ENTRYPOINT ["/bin/echo", "two"]
        """,
    ),
    Case(
        "command-both",
        """\
        FROM busybox
        CMD ["a", "b"]
        ENTRYPOINT ["/bin/echo"]
        EXPOSE 80 443/tcp 53/udp 80/tcp 7000-7002
        LABEL a=1
        LABEL a=2 b=3
        USER nobody
        WORKDIR /nowhere/yet
        """,
    ),
    Case(
        "configuration",
        """\
        FROM busybox AS base
        HEALTHCHECK --interval=5m --timeout=3s --start-period=1s --retries=2 CMD test -e /ok
        STOPSIGNAL 15
        VOLUME /data
        SHELL ["/bin/sh", "-e", "-c"]
        MAINTAINER nobody in particular
        ONBUILD RUN echo triggered > /triggered
        ONBUILD WORKDIR /from/trigger
        FROM base
        RUN mkdir /data && echo kept > /data/file
        RUN echo "$0 $-" > /shell
        VOLUME ["/a b", "/data"]
        STOPSIGNAL sigquit
        CMD run --this "$HOME"
        EXPOSE 1000-1002/udp 8080
        EXPOSE $UNSET_PORT 9
        ONBUILD CMD ["later"]
        """,
    ),
    Case(
        "working-directories",
        """\
        FROM busybox
        RUN mkdir -m 700 /theirs && chown 33:8 /theirs && ln -s /theirs /link
        WORKDIR /by/root
        USER www-data:mail
        WORKDIR /made/by/user
        RUN pwd > /tmp/one
        WORKDIR ../sibling
        USER 1234
        WORKDIR /number
        WORKDIR /theirs
        USER root
        WORKDIR /link/below
        WORKDIR ""
        WORKDIR /a//b/./c/../d/
        WORKDIR e
        RUN pwd > /tmp/two
        """,
    ),
    Case(
        "mounts",
        """\
        FROM busybox AS base
        RUN mkdir /d && echo 1 > /d/one && ln -s /d /to-d && ln -s /etc/hostname /out
        FROM busybox
        WORKDIR /w
        RUN mkdir -p ctx in other /c /d /in /t /empty /run/secrets && touch /one here  # docker 20.10 leaves mount points
        RUN --mount=target=ctx find ctx | sort > /list && ! touch ctx/new
        RUN --mount=target=/c,source=app,rw touch /c/new && find /c | sort >> /list
        RUN --mount=type=bind,from=base,source=/d,dst=in cat in/one >> /list
        RUN --mount=type=bind,from=base,source=to-d,destination=/in cat /in/one >> /list
        RUN --mount=from=base,source=/d/one,target=/one cat /one >> /list
        RUN --mount=type=cache,target=/c,uid=33,gid=8,mode=0710 stat -c "%a %u %g" /c >> /list; touch /c/kept
        RUN --mount=type=cache,target=/c,uid=33,gid=8,mode=0710 ls /c >> /list
        RUN --mount=type=cache,target=/c ls /c >> /list
        RUN --mount=type=cache,target=other,id=/c,uid=33,gid=8,mode=0710 ls other >> /list
        RUN --mount=type=cache,target=/c,from=base,source=/d ls -R /c >> /list; touch /c/x
        RUN --mount=type=cache,target=/empty,ro ! touch /empty/x && stat -c "%a %u %g" /empty >> /list
        RUN --mount=type=tmpfs,target=/t touch /t/x && ls /t >> /list
        RUN --mount=type=secret,id=absent ls /run/secrets 2>/dev/null | wc -l >> /list
        RUN --mount=type=secret,id=token stat -c "%a %u %g" /run/secrets/token >> /list
        RUN --mount=type=secret,id=token,target=here,mode=0440,uid=1,gid=2 stat -c "%a %u %g" here >> /list; cat here >> /list
        """,
        {**_TREE, "token": File("secret")},
        ("--secret", "id=token,src=CONTEXT/token"),
    ),
    Case(
        "health-off",
        """\
        FROM busybox AS base
        HEALTHCHECK CMD ["a", "b"]
        ENTRYPOINT ["one"]
        CMD ["two"]
        FROM base
        HEALTHCHECK NONE
        ENTRYPOINT []
        LABEL legacy form of a label
        LABEL "a"='b' c="d \\
          e"
        """,
    ),
    Case(
        "arguments",
        """\
        ARG ONE=1
        ARG TWO=${ONE}2 THREE="a b"
        ARG GIVEN=default
        FROM busybox AS base
        ARG ONE=own
        ARG TWO THREE GIVEN
        ARG EMPTY=
        ARG NOWHERE
        RUN env | grep -E '^(ONE|TWO|THREE|GIVEN|EMPTY|NOWHERE)=' | sort > /first
        ENV GIVEN=env EMPTY=filled
        ARG GIVEN
        ARG LATER=${EMPTY:+yes}${NOWHERE:-none}
        RUN env | grep -E '^(GIVEN|EMPTY|LATER|TARGETARCH)=' | sort > /second
        ARG TARGETARCH
        FROM base
        RUN env | grep -E '^(ONE|TWO|GIVEN|LATER|TARGETARCH)=' | sort > /third
        LABEL one=$ONE unset=${NOWHERE:-x}
        USER ${TARGETARCH}
        """,
        options=("--build-arg", "GIVEN=command", "--build-arg", "UNKNOWN=x", "--build-arg", "ONE"),
    ),
)
