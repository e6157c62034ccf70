"""A build, composed: Dockerfile and context in, an image in the store out.

The command line and the API both come here. What a build needs from transfer and runner
is handed to the builder through its ports.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from builder.check import check, check_options, refuse
from builder.context import Context
from builder.dockerfile.checks import CheckWarning
from builder.dockerfile.excerpt import excerpt
from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse, source_lines
from builder.dockerfile.stages import split_stages, with_first_base
from builder.entitlements import require_entitlements
from builder.graph import Graph
from builder.origin import Origin
from builder.outputs import BuiltImage, write_image
from builder.plan import Source, global_arguments, needed, plan, unconsumed
from builder.ports import BaseImages, Downloads, HostMount, RemoteCache, Repositories, Sandbox
from builder.progress import Progress, Warned
from builder.results import Stack
from builder.solve import Ports, SolveOptions, Solver
from builder.stage_plan import PROXY_ARGS, PlanOptions
from image.errors import DockerfileError, InvalidInput, NotFound
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass, field, replace
from store.store import Session, Store

if TYPE_CHECKING:
    from builder.draw import Form
from tierce.build.platforms import why_not


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """``dockerfile`` is the text and the name that messages show; ``path`` where it lies, if it does.

    ``context`` is a directory, seen through its ignore file or that which ``ignore_file`` names; or
    what was made for this build, from git, a URL or a tar; ``origin`` is where on the network that
    was. ``contexts`` has the files of named ones.
    """

    context: Path | Context
    dockerfile: bytes
    name: str
    path: Path | None
    plan: PlanOptions
    solve: SolveOptions
    tags: tuple[Reference, ...] = ()
    contexts: Mapping[str, Context] = field(default_factory=dict)
    ignore_file: Path | None = None
    origin: Origin | None = None

    def for_platform(self, platform: Platform) -> BuildRequest:
        """The same build for another platform."""
        return replace(self, plan=replace(self.plan, platform=platform))


@dataclass(frozen=True, slots=True)
class Connections:
    """The world of a build: where images come from, what runs processes, who watches, what it may use.

    ``secrets`` gives values by id, only when a step asks; ``agents`` are SSH agents' sockets;
    ``authorities`` is a bundle of certificates that every step is to trust, ``volumes`` are files of
    the host that every step sees. ``remotes`` are caches that other builds left, asked in order. Without ``downloads`` and ``repositories``, ADD takes
    local files only.
    """

    images: BaseImages
    sandbox: Sandbox
    progress: Progress
    clock: Callable[[], float] = time.time
    secrets: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    agents: Mapping[str, Path] = field(default_factory=dict)
    authorities: Path | None = None
    volumes: tuple[HostMount, ...] = ()
    remotes: Sequence[RemoteCache] = ()
    downloads: Downloads | None = None
    repositories: Repositories | None = None


@dataclass(frozen=True, slots=True)
class SolvedBuild:
    """A build whose files are made, held by its session; nothing of it is visible yet."""

    graph: Graph
    stack: Stack
    solver: Solver

    def directories(self, store: Store) -> tuple[str, ...]:
        """Its root filesystem's layer directories, top first."""
        return store.layers.directories_of(self.stack[-1].chain_id) if self.stack else ()


class Build:
    """One build in a store session. Its parts raise DockerfileError with the source's lines."""

    def __init__(self, session: Session, request: BuildRequest, connections: Connections) -> None:
        self._session = session
        self._request = request
        self._connections = connections
        self._planned: tuple[Graph, Solver] | None = None

    def run(self) -> BuiltImage:
        """Build, and give the image its tags. Nothing is visible before all of it is done."""
        request, clock = self._request, self._connections.clock
        solved = self.solve()
        built = write_image(self._session, solved.graph, solved.stack, now_s=clock(), epoch_s=request.solve.epoch_s)
        self._session.store.add_image(built.manifest, request.tags)
        return built

    def check(self) -> None:
        """Plan, and fail now if a process would have to run that can't run here: of several platforms, all first."""
        graph, solver = self._planned = self._prepare(warn=True)
        with with_source_lines(self._request):
            solver.check(graph)

    def solve(self) -> SolvedBuild:
        """Do every step, and name nothing."""
        graph, solver = self._planned or self._prepare(warn=True)
        with with_source_lines(self._request):
            return SolvedBuild(graph, solver.solve(graph), solver)

    def draw(self, form: Form) -> str:
        """The graph as text, with what the cache holds, without building."""
        from builder.draw import draw

        graph, solver = self._prepare(warn=False)
        with with_source_lines(self._request):
            return draw(graph, solver.cached(graph), form)

    def _prepare(self, *, warn: bool) -> tuple[Graph, Solver]:
        request, connections = self._request, self._connections
        with with_source_lines(request):
            document = parse(request.dockerfile, request.name)
            context = main_context(request)
            statements = with_first_base(instructions(document), request.plan.first_base)
            source = Source(split_stages(statements), document.escape)
            self._look_images_up(source)
            planned = plan(source, request.plan, connections.images.resolve)
            require_entitlements(planned.graph.target, request.plan.allowed)
            if warn:
                options = check_options(document, request.plan.build_args)
                found = check(document, statements, source.stages, planned, options=options, ignore=context.rules)
                self._tell(found, document.lines, unconsumed(source, request.plan, planned))
                refuse(found, options)
        ports = Ports(
            connections.images, connections.sandbox, {**request.contexts, "": context}, connections.progress, connections.clock,
            connections.secrets, connections.agents, connections.authorities, connections.volumes,
            connections.remotes, why_not(request.plan.build_platform),
            connections.downloads, connections.repositories,
        )  # fmt: skip
        return planned.graph, Solver(self._session, ports, request.solve)

    def _tell(self, warnings: Iterable[CheckWarning], lines: Sequence[str], unused: Sequence[str]) -> None:
        progress = self._connections.progress
        for warning in warnings:
            progress(Warned(warning.rule.name, warning.message, warning.span, excerpt(lines, warning.span)))
        if unused:
            progress(Warned("", f"one or more build-args [{' '.join(unused)}] were not consumed", None))

    def _look_images_up(self, source: Source) -> None:
        """Ask for all base images at once; the planner then finds each one looked up."""
        images = needed(source, self._request.plan).images
        if len(images) < 2:
            return
        with ThreadPoolExecutor(len(images), "resolve") as pool:
            for future in [pool.submit(self._connections.images.resolve, *image) for image in images]:
                future.exception()  # the planner asks again and knows the line that wanted it


@contextmanager
def with_source_lines(request: BuildRequest) -> Iterator[None]:
    """Give an error the text that its span counts in."""
    try:
        yield
    except DockerfileError as error:
        if error.span is not None and error.span.file == request.name:
            error.source = source_lines(request.dockerfile)
        raise


def main_context(request: BuildRequest) -> Context:
    """The main context as the steps see it. Raises InvalidInput."""
    given = request.context
    if isinstance(given, os.PathLike):
        return Context.load(given, request.path, request.ignore_file)
    if request.ignore_file is None:
        return given
    return replace(Context.load(given.root, None, request.ignore_file), keeps_owners=given.keeps_owners)


def build(store: Store, request: BuildRequest, connections: Connections) -> BuiltImage:
    """Build an image in a session of its own."""
    with store.session() as session:
        return Build(session, request, connections).run()


def build_arguments(
    words: Mapping[str, str | None], environ: Mapping[str, str], *, proxies: bool = True
) -> dict[str, str]:
    """``--build-arg`` values; a bare name takes the environment's, and is dropped where it has none.

    Proxies (if wanted) and SOURCE_DATE_EPOCH are passed on from the environment, as docker's client does.
    """
    names = {"SOURCE_DATE_EPOCH", *(PROXY_ARGS if proxies else ())}
    forwarded = {name: environ[name] for name in names & environ.keys()}
    return forwarded | environment_words(words, environ)


def environment_words(words: Mapping[str, str | None], environ: Mapping[str, str]) -> dict[str, str]:
    """``NAME=VALUE`` words; a bare name takes the environment's value, and is dropped where it has none."""
    given = {name: environ.get(name) if value is None else value for name, value in words.items()}
    return {name: value for name, value in given.items() if value is not None}


def argument_file(path: Path) -> tuple[str, ...]:
    """The words of a ``--build-arg-file``: a line each, but for blank lines and comments. Raises InvalidInput."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", "") or "not UTF-8 text").lower()
        raise InvalidInput(f"read build args from {path}: {reason}") from error
    return tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


_AUTHORITY_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
)  # fmt: skip
"""Debian, Fedora, openSUSE, CentOS, Alpine."""


def host_authorities(environ: Mapping[str, str]) -> Path:
    """The bundle of certificates that this host trusts: SSL_CERT_FILE, else the distribution's.

    Raises NotFound.
    """
    candidates = [environ["SSL_CERT_FILE"]] if environ.get("SSL_CERT_FILE") else list(_AUTHORITY_BUNDLES)
    for candidate in candidates:
        if os.path.isfile(candidate):
            return Path(os.path.realpath(candidate))
    raise NotFound(f"--host-ca: no bundle of certificates at {', '.join(candidates)}: set SSL_CERT_FILE")


def source_date_epoch(plan: PlanOptions, environ: Mapping[str, str], dockerfile: bytes = b"") -> int | None:
    """Seconds of SOURCE_DATE_EPOCH: the build argument's, else the environment's, else a global ARG's default.

    The first that is there counts, even if it is empty: then there is none. Raises InvalidInput.
    """
    text = plan.build_args.get("SOURCE_DATE_EPOCH", environ.get("SOURCE_DATE_EPOCH"))
    if text is None:
        text = _declared_epoch(plan, dockerfile)
    if not text:
        return None
    if not text.isdigit() or len(text) > 11:
        raise InvalidInput(f"invalid SOURCE_DATE_EPOCH: {text}: want seconds since 1970")
    return int(text)


def _declared_epoch(plan: PlanOptions, dockerfile: bytes) -> str:
    if b"SOURCE_DATE_EPOCH" not in dockerfile:
        return ""
    try:
        document = parse(dockerfile, "Dockerfile")
        source = Source(split_stages(instructions(document)), document.escape)
        return global_arguments(source, plan).get("SOURCE_DATE_EPOCH", "")
    except DockerfileError:
        return ""  # the build itself says what is wrong, and where
