"""``tierce build``, with docker's flags."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from image.errors import InvalidInput
from tierce.cli.build_flags import BuildFlags, build_options
from tierce.cli.command import Settings, command

if TYPE_CHECKING:
    from builder.stage_plan import PlanOptions
    from tierce.building import BuildRequest
    from tierce.cli.build_outputs import Wanted

_MAX_STDIN: Final = 10 << 20


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
tierce build --check .                        # only warn about the Dockerfile
tierce build --call outline .                 # what can be set: arguments, secrets
""",
)
@click.argument("context", metavar="PATH | -")
@build_options
@click.pass_obj
def build(settings: Settings, /, **values: Any) -> None:
    """Build an image from a Dockerfile and the files of PATH, its context.

    The image id is printed at the end; a failing instruction is shown with its lines.
    """
    from tierce.base_images import StoredImages
    from tierce.build_outputs import perform
    from tierce.building import Build, Connections, host_authorities, parse_agents, parse_secrets
    from tierce.cli.build_call import answer, parse_call
    from tierce.cli.build_outputs import report, surroundings, wanted
    from tierce.cli.build_progress import make_view
    from tierce.sandbox import RunnerSandbox

    flags = BuildFlags(**values)
    call = parse_call("check" if flags.check else flags.call)
    goal = wanted(flags)
    request = _request(settings, flags, goal)
    if call[0] != "build":
        click.get_current_context().exit(answer(settings, flags, request, call))
    given = (
        parse_secrets(flags.secret, settings.environ),
        parse_agents(flags.ssh, settings.environ),
        host_authorities(settings.environ) if flags.host_ca else None,
    )
    with (
        settings.store() as store,
        store.session() as session,
        make_view(_view_mode(flags), sys.stderr, settings.environ, settings.clock) as view,
        RunnerSandbox(settings.environ) as sandbox,
    ):
        images = StoredImages(store, session, settings.environ, pull=flags.pull, tls_verify=flags.tls_verify)
        world = Connections(images, sandbox, view, settings.clock, *given)
        if flags.graph is not None:
            click.echo(Build(session, request, world).draw(flags.graph))
            return
        solved = [Build(session, request.for_platform(one), world).solve() for one in goal.platforms]
        with surroundings(settings, flags, session, request) as around:
            outcome = perform(goal.outputs, solved, around)
    report(flags, goal.outputs, outcome)


def _view_mode(flags: BuildFlags) -> str:
    return "quiet" if flags.quiet or flags.graph else flags.progress


def _request(settings: Settings, flags: BuildFlags, goal: Wanted) -> BuildRequest:
    from builder.solve import SolveOptions
    from image.reference import Reference
    from tierce.building import BuildRequest, source_date_epoch
    from tierce.cli.build_outputs import epoch_of

    plan = _plan_options(settings, flags, goal)
    directory, dockerfile, name, path = _inputs(settings, flags)
    epoch_s = epoch_of(flags, source_date_epoch(plan.build_args, settings.environ))
    return BuildRequest(
        context=directory,
        dockerfile=dockerfile,
        name=name,
        path=path,
        plan=plan,
        solve=SolveOptions(jobs=flags.workers, epoch_s=epoch_s, compression=goal.compression),
        tags=tuple(Reference.parse(tag).with_default_tag() for tag in flags.tag),
    )


def _plan_options(settings: Settings, flags: BuildFlags, goal: Wanted) -> PlanOptions:
    from builder.stage_plan import PlanOptions
    from tierce.building import build_arguments
    from tierce.images import host_platform

    here = host_platform()
    return PlanOptions(
        platform=goal.platforms[0],
        build_platform=here,
        target=flags.target,
        build_args=build_arguments(_build_args(flags), settings.environ),
        labels={name: value or "" for name, value in flags.pairs(flags.label).items()},
        network="none" if flags.network == "none" else "host" if flags.network == "host" else "default",
        no_cache=flags.no_cache,
        no_cache_stages=frozenset(name.lower() for word in flags.no_cache_filter for name in word.split(",")),
    )


def _build_args(flags: BuildFlags) -> dict[str, str | None]:
    """Those of the files, then those of the command line, which win."""
    from tierce.building import argument_file

    found: dict[str, str | None] = {}
    for path in flags.build_arg_file:
        found |= flags.pairs(argument_file(path))
    return found | flags.pairs(flags.build_arg)


def _inputs(settings: Settings, flags: BuildFlags) -> tuple[Path, bytes, str, Path | None]:
    """Context directory, Dockerfile, the name that messages show, where it lies."""
    from tierce.building import find_dockerfile

    context = flags.context
    if "://" in context or context.startswith(("git@", "github.com/")):
        raise InvalidInput(f"build context {context}: only directories are supported")
    if context == "-":
        empty = settings.root / "overlay2" / "l" / "0"
        return empty, _standard_input(), "Dockerfile", None
    directory = Path(context)
    if not directory.is_dir():
        raise InvalidInput(f'unable to prepare context: path "{context}" not found or not a directory')
    if flags.file == "-":
        return directory, _standard_input(), "Dockerfile", None
    path = find_dockerfile(directory, flags.file)
    return directory, path.read_bytes(), path.name, path


def _standard_input() -> bytes:
    data = sys.stdin.buffer.read(_MAX_STDIN + 1)
    if len(data) > _MAX_STDIN or data[257:262] == b"ustar" or data.startswith(b"\x1f\x8b"):
        raise InvalidInput("standard input is not a Dockerfile: a tar as build context is not supported")
    return data
