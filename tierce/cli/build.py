"""``tierce build``, with docker's flags."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from image.errors import DockerfileError, ProcessFailed
from image.reference import Reference
from image.value import replace
from tierce.cli.build_flags import BuildFlags
from tierce.cli.build_options import build_options, foreign
from tierce.cli.build_said import say_built
from tierce.cli.command import Settings
from tierce.cli.declare import Ended, argument, command
from tierce.cli.output import echo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builder.stage_plan import PlanOptions
    from tierce.build.building import BuildRequest
    from tierce.build.contexts import Inputs, Named
    from tierce.build.outputs import Outcome
    from tierce.build.unchanged import Question
    from tierce.cli.build_outputs import Wanted
    from tierce.cli.build_world import Sources, World


@command(
    "build",
    others=foreign,
    short_help="Build an image from a Dockerfile",
    examples="""
tierce build -t app .                         # Dockerfile in this directory
tierce build -f docker/prod.Dockerfile -t app:1 --build-arg VERSION=1 .
tierce build --target test --progress plain .
tierce build - < Dockerfile                   # no context
tar c . | tierce build -                      # context and Dockerfile
tierce build https://host/app.git#main:docker # branch and directory
tierce build --build-context base=../base .   # FROM base
tierce build -o out .                         # the files, no image
tierce build --platform linux/amd64,linux/arm64 -t example.com/app --push .
tierce build --cache-to type=local,dest=cache,mode=max --cache-from type=local,src=cache .
SOURCE_DATE_EPOCH=0 tierce build -t app .     # the same digest everywhere
tierce build --graph mermaid .                # draw it, build nothing
tierce build --check .                        # only warn about the Dockerfile
tierce build --call outline .                 # what can be set: arguments, secrets
""",
)
@argument("context", metavar="PATH | URL | -", default=".")
@build_options
def build(settings: Settings, /, **values: Any) -> None:
    """Build an image from a Dockerfile and the files of its context.

    That is a directory (this one if none is named), a tar on standard input or behind a URL, or
    a git repository.
    The image id is printed at the end; a failing instruction is shown with its lines.
    """
    from tierce.build.unchanged import ask

    flags = BuildFlags(**values)
    question = ask(flags, settings.environ, int(settings.clock() * 1e9))
    if question is not None and _answered(settings, flags, question):
        return
    try:
        _build(settings, flags, question)
    except DockerfileError as error:
        if not (flags.shell_on_failure and isinstance(error.__cause__, ProcessFailed)):
            raise
        from tierce.cli.failures import explain
        from tierce.cli.shell import enter

        echo(explain(error), err=True, nl=False)
        enter(settings)
        raise Ended(1) from error


def _answered(settings: Settings, flags: BuildFlags, question: Question) -> bool:
    """Whether an earlier build is the answer; then it is given."""
    from tierce.build.unchanged import give_names, look_up, replay
    from tierce.cli.build_progress import make_view

    with settings.store() as store:
        answer = look_up(store, question)
        if answer is None:
            return False
        names = tuple(Reference.parse(tag).with_default_tag() for tag in flags.tag)
        mode = "quiet" if flags.quiet else flags.progress
        with make_view(mode, sys.stderr, settings.environ, settings.clock) as view:
            replay(answer, view, settings.clock)
        give_names(store, answer, names)
    say_built(flags, answer.id, names)
    return True


def _build(settings: Settings, flags: BuildFlags, question: Question | None) -> None:
    from tierce.build.building import Build
    from tierce.cli.build_call import answer, parse_call
    from tierce.cli.build_outputs import report, wanted
    from tierce.cli.build_verify import tell
    from tierce.cli.build_world import open_sources, open_world

    call = parse_call("check" if flags.check else flags.call)
    goal = wanted(flags)
    with ExitStack() as stack:
        sources = open_sources(stack, settings, flags)
        named = sources.contexts.named(flags.build_context)
        keep_git_dir = _build_args(flags).get("BUILDKIT_CONTEXT_KEEP_GIT_DIR") in {"1", "true"}
        inputs = sources.contexts.inputs(flags.context, flags.file, keep_git_dir=keep_git_dir)
        request = _request(settings, flags, goal, inputs, named)
        if call[0] != "build":
            raise Ended(answer(settings, flags, request, call))
        world = open_world(stack, settings, flags, sources, named)
        if flags.graph is not None:
            echo(Build(world.session, request, world.connections).draw(flags.graph))
            return
        outcome, differences = _perform(settings, flags, goal, request, sources, world, question)
    report(flags, goal.outputs, outcome)
    if flags.verify_reproducible:
        raise Ended(tell(differences))


def _perform(
    settings: Settings,
    flags: BuildFlags,
    goal: Wanted,
    request: BuildRequest,
    sources: Sources,
    world: World,
    question: Question | None,
) -> tuple[Outcome, list[str]]:
    """The build itself: each platform's, then outputs and caches; and what a second one gave otherwise."""
    from tierce.build.building import Build
    from tierce.build.outputs import perform
    from tierce.build.unchanged import Watch, remember
    from tierce.cli.build_cache import cache_exports, inline_records, write_caches
    from tierce.cli.build_outputs import add_to_list, attested, surroundings, told_of
    from tierce.cli.build_verify import build_again

    session, connections, started_s = world.session, world.connections, settings.clock()
    exports = cache_exports(flags, request.plan.build_args)
    requests = [request.for_platform(one) for one in goal.platforms]
    watch = Watch(world.view)
    builds = [
        Build(session, one, replace(connections, progress=told_of(watch, one.plan.platform, len(requests))))
        for one in requests
    ]
    for one_build in builds if len(builds) > 1 else ():
        one_build.check()
    solved = [one_build.solve() for one_build in builds]
    provenance = attested(request, goal.provenance, started_s, settings.clock)
    around = surroundings(
        settings, session, request, world.registries, world.view, inline_records(exports), provenance, index=goal.index
    )
    outcome = perform(goal.outputs, solved, around)
    if flags.manifest and outcome.written is not None:
        add_to_list(session, flags.manifest, outcome.written)
    write_caches(exports, solved, world.caches, around, world.view)
    if question is not None and outcome.written is not None and not watch.warned:
        remember(session.store, question, solved[0].graph, outcome.written.target, outcome.written.id)
    if not flags.verify_reproducible:
        return outcome, []
    return outcome, build_again(session, sources.network, solved, requests, connections, world.images)


def _request(settings: Settings, flags: BuildFlags, goal: Wanted, inputs: Inputs, named: Named) -> BuildRequest:
    from builder.solve import SolveOptions
    from image.reference import Reference
    from tierce.build.building import BuildRequest, source_date_epoch
    from tierce.cli.build_outputs import epoch_of

    plan = _plan_options(settings, flags, goal, named)
    epoch_s = epoch_of(flags, source_date_epoch(plan, settings.environ, inputs.dockerfile))
    return BuildRequest(
        context=inputs.context,
        dockerfile=inputs.dockerfile,
        name=inputs.name,
        path=inputs.path,
        plan=plan,
        solve=SolveOptions(
            jobs=flags.workers,
            epoch_s=epoch_s,
            compression=goal.compression,
            cache_ttl_s=flags.cache_ttl_s,
        ),
        tags=tuple(Reference.parse(tag).with_default_tag() for tag in flags.tag),
        contexts=named.files,
        ignore_file=flags.ignorefile,
        origin=inputs.origin,
    )


def _plan_options(settings: Settings, flags: BuildFlags, goal: Wanted, named: Named) -> PlanOptions:
    from builder.stage_plan import PlanOptions
    from tierce.build.building import build_arguments, environment_words
    from tierce.host_platform import host_platform

    here = host_platform()
    return PlanOptions(
        platform=goal.platforms[0],
        build_platform=here,
        target=flags.target,
        build_args=build_arguments(_build_args(flags), settings.environ, proxies=flags.http_proxy),
        unset_labels=frozenset(flags.unsetlabel),
        env=environment_words(flags.pairs(flags.env), settings.environ),
        unset_env=frozenset(flags.unsetenv),
        first_base=flags.from_,
        labels={name: value or "" for name, value in flags.pairs(flags.label).items()},
        network="none" if flags.network == "none" else "host" if flags.network == "host" else "default",
        allowed=flags.entitlements(),
        no_cache=flags.no_cache or not flags.layers,
        no_cache_stages=frozenset(name.lower() for word in flags.no_cache_filter for name in word.split(",")),
        contexts=named.meanings,
    )


def _build_args(flags: BuildFlags) -> dict[str, str | None]:
    """Those of the files, then those of the command line, which win."""
    from tierce.build.building import argument_file

    found: dict[str, str | None] = {}
    for path in flags.build_arg_file:
        found |= flags.pairs(argument_file(path))
    return found | flags.pairs(flags.build_arg)
