"""``tierce build``, with docker's flags."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image.errors import InvalidInput
from tierce.cli.command import Settings, command

if TYPE_CHECKING:
    from builder.stage_plan import PlanOptions
    from image.platform import Platform
    from tierce.building import BuildRequest

_MAX_STDIN = 10 << 20


@command(
    "build",
    short_help="Build an image from a Dockerfile",
    examples="""
tierce build -t app .                         # Dockerfile in this directory
tierce build -f docker/prod.Dockerfile -t app:1 --build-arg VERSION=1 .
tierce build --target test --progress plain .
tierce build - < Dockerfile                   # no context
SOURCE_DATE_EPOCH=0 tierce build -t app .     # the same digest everywhere
tierce build --graph mermaid .                # draw it, build nothing
""",
)
@click.argument("context", metavar="PATH | -")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME[:TAG]", help="Name the image; may be repeated")
@click.option("-f", "--file", metavar="PATH", help="Dockerfile, or - for standard input  [PATH/Dockerfile]")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="Set an ARG")
@click.option("--target", default="", metavar="STAGE", help="Stage to build  [the last]")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Add a label")
@click.option("--platform", metavar="OS/ARCH", help="Platform to build for  [this machine's]")
@click.option("--network", type=click.Choice(["default", "none", "host"]), default="default", help="Network of RUN")
@click.option(
    "--secret", "secrets", multiple=True, metavar="id=NAME[,src=FILE|env=NAME]", help="Give RUN --mount=type=secret"
)
@click.option("--ssh", "agents", multiple=True, metavar="default|ID=SOCKET", help="Give RUN --mount=type=ssh an agent")
@click.option("--no-cache", is_flag=True, help="Do not use the build cache")
@click.option("--pull", is_flag=True, help="Look for newer base images")
@click.option("--tls-verify/--no-tls-verify", default=True, help="Verify registries' certificates")
@click.option("--jobs", type=click.IntRange(1, 64), default=None, metavar="N", help="Steps at once  [CPUs + 2]")
@click.option("--progress", default="auto", metavar="MODE", help="auto, plain, tty, quiet, rawjson, none")
@click.option("-q", "--quiet", is_flag=True, help="Print the image id alone")
@click.option("--iidfile", type=click.Path(path_type=Path), metavar="FILE", help="Write the image id to a file")
@click.option("--graph", type=click.Choice(["dot", "mermaid"]), help="Print the graph and build nothing")
@click.pass_obj
def build(
    settings: Settings,
    context: str,
    tags: tuple[str, ...],
    file: str | None,
    build_args: tuple[str, ...],
    target: str,
    labels: tuple[str, ...],
    platform: str | None,
    network: str,
    secrets: tuple[str, ...],
    agents: tuple[str, ...],
    no_cache: bool,
    pull: bool,
    tls_verify: bool,
    jobs: int | None,
    progress: str,
    quiet: bool,
    iidfile: Path | None,
    graph: str | None,
) -> None:
    """Build an image from a Dockerfile and the files of PATH, its context.

    The image id is printed at the end; a failing instruction is shown with its lines.
    """
    from tierce.base_images import StoredImages
    from tierce.building import Build, Connections, parse_agents, parse_secrets
    from tierce.cli.build_progress import make_view
    from tierce.sandbox import RunnerSandbox

    plan = _plan_options(settings, build_args, target, labels, platform, network, no_cache=no_cache)
    request = _request(settings, context, file, tags, plan, jobs)
    mode = "quiet" if quiet or graph else progress
    with settings.store() as store, store.session() as session:
        images = StoredImages(store, session, settings.environ, pull=pull, tls_verify=tls_verify)
        with (
            make_view(mode, sys.stderr, settings.environ, settings.clock) as view,
            RunnerSandbox(settings.environ) as sandbox,
        ):
            given = parse_secrets(secrets, settings.environ), parse_agents(agents, settings.environ)
            work = Build(session, request, Connections(images, sandbox, view, settings.clock, *given))
            if graph is not None:
                click.echo(work.draw("dot" if graph == "dot" else "mermaid"))
                return
            built = work.run()
        if iidfile is not None:
            iidfile.write_text(str(built.id.digest))
        if quiet:
            click.echo(built.id.digest)
        elif progress not in {"rawjson", "none"}:
            _report(request, str(built.id.digest))


def _report(request: BuildRequest, image_id: str) -> None:
    names = "".join(f"Successfully tagged {tag.familiar}\n" for tag in request.tags)
    click.echo(f"Successfully built {image_id.partition(':')[2][:12]}\n{names}", nl=False)


def _plan_options(
    settings: Settings,
    build_args: tuple[str, ...],
    target: str,
    labels: tuple[str, ...],
    platform: str | None,
    network: str,
    *,
    no_cache: bool,
) -> PlanOptions:
    from builder.stage_plan import PlanOptions
    from tierce.building import build_arguments
    from tierce.images import host_platform

    here = host_platform()
    return PlanOptions(
        platform=_platform(platform, here),
        build_platform=here,
        target=target,
        build_args=build_arguments(_pairs(build_args), settings.environ),
        labels={name: value or "" for name, value in _pairs(labels).items()},
        network="none" if network == "none" else "host" if network == "host" else "default",
        no_cache=no_cache,
    )


def _platform(text: str | None, here: Platform) -> Platform:
    from image.platform import Platform, best_match

    if text is None:
        return here
    wanted = Platform.parse(text, here)
    if best_match(here, [wanted]) is None:
        raise InvalidInput(f"cannot build for {wanted}: this machine is {here} and emulation is not supported")
    return wanted


def _pairs(words: tuple[str, ...]) -> dict[str, str | None]:
    pairs: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise InvalidInput(f"invalid value {word!r}: want NAME=VALUE")
        pairs[name] = value if equals else None
    return pairs


def _request(
    settings: Settings, context: str, file: str | None, tags: tuple[str, ...], plan: PlanOptions, jobs: int | None
) -> BuildRequest:
    from builder.solve import SolveOptions
    from image.reference import Reference
    from tierce.building import BuildRequest, source_date_epoch

    directory, dockerfile, name, path = _inputs(settings, context, file)
    epoch_s = source_date_epoch(plan.build_args, settings.environ)
    return BuildRequest(
        context=directory,
        dockerfile=dockerfile,
        name=name,
        path=path,
        plan=plan,
        solve=SolveOptions(jobs=jobs or (os.cpu_count() or 2) + 2, epoch_s=epoch_s),
        tags=tuple(Reference.parse(tag).with_default_tag() for tag in tags),
    )


def _inputs(settings: Settings, context: str, file: str | None) -> tuple[Path, bytes, str, Path | None]:
    """Context directory, Dockerfile, the name that messages show, where it lies."""
    from tierce.building import find_dockerfile

    if "://" in context or context.startswith(("git@", "github.com/")):
        raise InvalidInput(f"build context {context}: only directories are supported")
    if context == "-":
        empty = settings.root / "overlay2" / "l" / "0"
        return empty, _standard_input(), "Dockerfile", None
    directory = Path(context)
    if not directory.is_dir():
        raise InvalidInput(f'unable to prepare context: path "{context}" not found or not a directory')
    if file == "-":
        return directory, _standard_input(), "Dockerfile", None
    path = find_dockerfile(directory, file)
    return directory, path.read_bytes(), path.name, path


def _standard_input() -> bytes:
    data = sys.stdin.buffer.read(_MAX_STDIN + 1)
    if len(data) > _MAX_STDIN or data[257:262] == b"ustar" or data.startswith(b"\x1f\x8b"):
        raise InvalidInput("standard input is not a Dockerfile: a tar as build context is not supported")
    return data
