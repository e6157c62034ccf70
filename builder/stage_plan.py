"""One stage of the plan: its state, and what each instruction does to it."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from builder import history
from builder.added import Added, plan_added, refuse_remote
from builder.dockerfile.checks import CheckWarning, undefined_variables
from builder.dockerfile.expand import Environment, arg_default, expanded, run_mounts
from builder.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from builder.dockerfile.interpret import interpret_trigger
from builder.dockerfile.mounts import BindMount, CacheMount, Mount, SecretMount, SshMount, mount_target
from builder.dockerfile.stages import Stage, Stages
from builder.dockerfile.words import Usage, quoted
from builder.entitlements import Entitlement
from builder.graph import (
    BaseImage,
    CopyFiles,
    FromContext,
    HistoryPlan,
    MakeDirectory,
    Network,
    RunCommand,
    Step,
    StepMount,
)
from builder.named import NamedContext
from image.config import DEFAULT_PATH, ContainerConfig
from image.errors import DockerfileError
from image.platform import Platform
from image.span import Span
from image.value import dataclass, field, replace

DEFAULT_SHELL: Final = ("/bin/sh", "-c")
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PROXY_ARGS: Final = frozenset(spelling for name in _PROXIES for spelling in (name, name.lower()))
"""Build arguments that RUN sees undeclared, and that make no other step."""

_COMMENT: Final = " # buildkit"
"""What docker's history ends a layer's entry with; tools look for it."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the user asked for, apart from the Dockerfile. ``build_args`` without a value are left out."""

    platform: Platform
    build_platform: Platform
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    unset_labels: frozenset[str] = frozenset()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    unset_env: frozenset[str] = frozenset()
    """Labels and variables of the finished image; no step sees them."""
    first_base: str = ""
    """An image instead of that of the first FROM."""
    network: Network = "default"
    allowed: frozenset[Entitlement] = frozenset()
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    """Names, in lower case, of stages that the build cache must not serve."""
    contexts: Mapping[str, NamedContext] = field(default_factory=lambda: MappingProxyType({}))
    """What ``--build-context`` gives, by ``named.context_name``."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a stage sees besides its own state: global arguments, escape character, the user's wishes."""

    global_arguments: Mapping[str, str]
    escape: str
    options: PlanOptions


@dataclass(frozen=True, slots=True)
class Noticed:
    """A warning, and the image on whose configuration it rests, if on any."""

    warning: CheckWarning
    base: BaseImage | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    """A name that an ARG of a stage declared, and the value that it got there."""

    name: str
    value: str | None
    arg: Arg


@dataclass(slots=True)
class StageState:
    """What a stage has come to: the files, the configuration, and the variables of the build."""

    top: Step
    base: BaseImage | None
    config: ContainerConfig
    author: str = ""
    history: list[HistoryPlan] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    """ENV and ARG in the order they were set: what words and RUN see."""
    arguments: dict[str, str] = field(default_factory=dict)
    """ARGs by name, in the order they were declared: what history tells of a RUN."""
    has_cmd: bool = False

    @classmethod
    def scratch(cls, top: Step) -> StageState:
        config = ContainerConfig(env=(f"PATH={DEFAULT_PATH}",), working_dir="/")
        return cls(top, None, config, variables=config.env_map())

    @classmethod
    def from_image(cls, top: Step, image: BaseImage) -> StageState:
        config = image.config.config
        if "PATH" not in config.env_map():
            config = replace(config, env=(f"PATH={DEFAULT_PATH}", *config.env))
        return cls(top, image, config, image.config.author, variables=config.env_map())

    def child(self) -> StageState:
        """A copy for a stage that starts from this one: there an ENV beats the ARGs that came after it."""
        return replace(
            self,
            history=list(self.history),
            variables=self.variables | self.config.env_map(),
            arguments=dict(self.arguments),
            has_cmd=False,
        )

    def take_triggers(self, span: Span) -> tuple[Instruction, ...]:
        """The ONBUILD instructions of the base, which do not stay in the configuration."""
        triggers = tuple(interpret_trigger(expression, span) for expression in self.config.on_build)
        self.config = replace(self.config, on_build=())
        return triggers

    def image_config(self, options: PlanOptions) -> ContainerConfig:
        """The configuration of the finished image, with the command line's labels and variables."""
        config = self.config
        if options.labels or options.unset_labels:
            labels = {**config.labels, **options.labels}
            kept = {name: value for name, value in labels.items() if name not in options.unset_labels}
            config = replace(config, labels=MappingProxyType(kept))
        if options.env or options.unset_env:
            variables = {**config.env_map(), **options.env}
            env = tuple(f"{name}={value}" for name, value in variables.items() if name not in options.unset_env)
            config = replace(config, env=env)
        return config


class StagePlan:
    """Carries the instructions of a stage out on a state. ``noticed`` and ``declared`` grow meanwhile."""

    def __init__(
        self, label: str, state: StageState, scope: Scope, read_from: Callable[[str, Span], Step], *, name: str = ""
    ) -> None:
        self.noticed: list[Noticed] = []
        self.declared: list[Declared] = []
        self._label = label
        self._fresh = scope.options.no_cache or name in scope.options.no_cache_stages
        self._state = state
        self._scope = scope
        self._options = scope.options
        self._read_from = read_from
        self._position = 1
        self._count = 1

    def carry_out(self, instructions: Iterable[Instruction]) -> None:
        """Raises DockerfileError at the instruction that is wrong."""
        body = tuple(instructions)
        self._count = step_count(body)
        for instruction in body:
            if isinstance(instruction, Arg):
                self._arg(instruction)
            else:
                with self._words(instruction.span) as env:
                    ready = expanded(instruction, env)
                self._apply(ready)

    @contextmanager
    def _words(self, span: Span) -> Iterator[Environment]:
        """What words of an instruction are expanded with. Variables that turn out to be undefined are noticed.

        A declared ARG without a value is no mistake.
        """
        state, usage = self._state, Usage()
        yield Environment(state.variables, self._scope.escape, usage)
        unset = usage.unset - state.arguments.keys()
        if unset:
            found = undefined_variables(span, unset, state.variables.keys())
            self.noticed += [Noticed(warning, state.base) for warning in found]

    def _apply(self, instruction: Instruction) -> None:
        match instruction:
            case Run():
                self._run(instruction)
            case Copy():
                self._copy(instruction)
            case Add():
                self._add(instruction)
            case Workdir():
                self._workdir(instruction)
            case Env():
                self._env(instruction)
            case Cmd() | Entrypoint():
                self._command(instruction)
            case From() | Arg():
                raise DockerfileError(f"unexpected {instruction.keyword}", span=instruction.span)
            case _:
                self._configure(instruction)

    # Instructions that only configure

    def _configure(
        self, instruction: Label | User | Expose | Volume | Shell | Stopsignal | Healthcheck | Onbuild | Maintainer
    ) -> None:
        config = self._state.config
        match instruction:
            case Label(pairs=pairs):
                config = replace(config, labels=MappingProxyType({**config.labels, **dict(pairs)}))
                entry = "LABEL " + history.pairs(pairs)
            case User(user=user):
                config = replace(config, user=user)
                entry = f"USER {user}"
            case Expose(ports=ports):
                config = replace(config, exposed_ports=_union(config.exposed_ports, ports))
                entry = f"EXPOSE [{' '.join(ports)}]"
            case Volume(paths=paths):
                config = replace(config, volumes=_union(config.volumes, paths))
                entry = f"VOLUME [{' '.join(paths)}]"
            case Shell(args=args):
                config = replace(config, shell=args)
                entry = f"SHELL [{' '.join(args)}]"
            case Stopsignal(signal=signal):
                config = replace(config, stop_signal=signal)
                entry = f"STOPSIGNAL {signal}"
            case Healthcheck(check=check):
                config = replace(config, healthcheck=check)
                entry = f"HEALTHCHECK {history.health(check)}"
            case Onbuild(expression=expression):
                self._state.config = replace(config, on_build=(*config.on_build, expression))
                return
            case Maintainer(author=author):
                self._state.author = author
                entry = f"MAINTAINER {author}"
        self._state.config = config
        self._remember(entry)

    def _env(self, env: Env) -> None:
        state = self._state
        values = state.config.env_map() | dict(env.pairs)
        state.config = replace(state.config, env=tuple(f"{name}={value}" for name, value in values.items()))
        state.variables.update(env.pairs)
        self._remember("ENV " + history.pairs(env.pairs))

    def _arg(self, arg: Arg) -> None:
        state, options, scope = self._state, self._options, self._scope
        with self._words(arg.span) as env:
            found = declare(arg, state.variables, options.build_args, scope.global_arguments, env)
        for name, _ in arg.args:
            state.arguments[name] = found.get(name, "")
            self.declared.append(Declared(name, found.get(name), arg))
        words = [f"{name}={found[name]}" if name in found else name for name, _ in arg.args]
        self._remember("ARG " + " ".join(words))

    def _command(self, instruction: Cmd | Entrypoint) -> None:
        state = self._state
        argv = instruction.command.argv(state.config.shell or DEFAULT_SHELL)
        entry = f"{instruction.keyword.upper()} [{' '.join(quoted(word) for word in argv)}]"
        if isinstance(instruction, Cmd):
            state.config = replace(state.config, cmd=argv, args_escaped=True)
            state.has_cmd = True
        else:
            cmd = state.config.cmd if state.has_cmd else None
            state.config = replace(state.config, entrypoint=argv or None, cmd=cmd)
        self._remember(entry)

    # Instructions that make layers

    def _run(self, run: Run) -> None:
        _refuse(run, [("--device", run.devices)])
        state = self._state
        argv, script = run.process(state.config.shell or DEFAULT_SHELL)
        env = {"PATH": DEFAULT_PATH, **state.variables}
        mounts, others = self._mounts(run)
        operation = RunCommand(
            argv,
            tuple(f"{name}={value}" for name, value in env.items()),
            state.config.working_dir or "/",
            state.config.user,
            _network(run, self._options.network),
            script,
            mounts,
            self._options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME", ""),
            "insecure" if run.security == "insecure" else "sandbox",
            _proxies(self._options.build_args, state.variables),
        )
        arguments = [f"{name}={state.variables.get(name, value)}" for name, value in state.arguments.items()]
        words = [f"|{len(arguments)}", *arguments] if arguments else []
        self._layer(operation, others, run, " ".join(["RUN", *words, *argv]) + _COMMENT)

    def _mounts(self, run: Run) -> tuple[tuple[StepMount, ...], tuple[Step, ...]]:
        """The mounts with absolute targets, and the steps that they read from."""
        others: dict[str, Step] = {}
        mounts: list[StepMount] = []
        with self._words(run.span) as env:
            written = run_mounts(run, env)
        for mount in written:
            source: Step | None = None
            if isinstance(mount, BindMount | CacheMount) and mount.from_:
                source = self._read_from(mount.from_, run.span)
            elif isinstance(mount, BindMount):
                source = _context_step(run.span)
            if source is not None:
                others.setdefault(source.id, source)
            position = None if source is None else list(others).index(source.id)
            mounts.append(StepMount(self._placed(mount, len(mounts), run.span), position))
        return tuple(mounts), tuple(others.values())

    def _placed(self, mount: Mount, number: int, span: Span) -> Mount:
        """The mount with its target from the working directory; a secret may have none."""
        target = mount.target
        if isinstance(mount, SshMount) and not target:
            target = f"/run/buildkit/ssh_agent.{number}"
        if isinstance(mount, SecretMount) and not target:
            return mount
        try:
            return replace(mount, target=mount_target(target, self._state.config.working_dir or "/"))
        except DockerfileError as error:
            error.span = error.span or span
            raise

    def _copy(self, copy: Copy) -> None:
        refuse_remote(copy)
        source = self._read_from(copy.from_, copy.span) if copy.from_ else _context_step(copy.span)
        self._files(copy, Added(copy.sources, (), (source,)), parents=copy.parents)

    def _add(self, add: Add) -> None:
        self._files(add, plan_added(add, _context_step), unpack=add.unpack)

    def _files(self, files: Copy | Add, added: Added, *, parents: bool = False, unpack: bool | None = False) -> None:
        """``unpack`` None is ADD's default: local archives, and no downloads. A chmod ends what --link asks for."""
        operation = CopyFiles(
            added.sources,
            self._destination(files.destination),
            files.inline,
            files.chown or None,
            files.chmod or None,
            files.exclude,
            parents,
            isinstance(added.others[0].operation, FromContext),
            unpack is not False,
            added.inputs,
            unpack is True,
            files.link and not files.chmod,
        )
        words = ["--parents"] if parents else []
        words += [f"--chown={files.chown}"] if files.chown else []
        words += [f"--chmod={files.chmod}"] if files.chmod else []
        words += [*files.sources, *(f"<<{file.name}" for file in files.inline), files.destination]
        self._layer(operation, added.others, files, f"{files.keyword.upper()} {' '.join(words)}{_COMMENT}")

    def _destination(self, written: str) -> str:
        """Absolute, cleaned, with a trailing slash where it means a directory."""
        path = posixpath.join(self._state.config.working_dir or "/", written)
        cleaned = posixpath.normpath("/" + path.lstrip("/"))
        is_directory = written in {"", "."} or written.endswith(("/", "/."))
        return cleaned + "/" if is_directory and cleaned != "/" else cleaned

    def _workdir(self, workdir: Workdir) -> None:
        state = self._state
        path = workdir.path
        if not path.startswith("/"):
            path = posixpath.normpath(posixpath.join("/", state.config.working_dir, path))
        state.config = replace(state.config, working_dir=path)
        if posixpath.normpath(path) in {"/", "//"}:
            self._remember(f"WORKDIR {path}")
            return
        self._layer(MakeDirectory(posixpath.normpath(path), state.config.user), (), workdir, f"WORKDIR {path}")

    def _layer(
        self,
        operation: RunCommand | CopyFiles | MakeDirectory,
        others: tuple[Step, ...],
        instruction: Run | Copy | Add | Workdir,
        created_by: str,
    ) -> None:
        self._position += 1
        name = f"[{self._label}{self._position}/{self._count}] {instruction.original}"
        fresh = self._fresh and not isinstance(operation, MakeDirectory)
        step = Step.make(operation, self._state.top, others, name=name, span=instruction.span, fresh=fresh)
        self._state.top = step
        self._state.history.append(HistoryPlan(created_by, step))

    def _remember(self, created_by: str) -> None:
        self._state.history.append(HistoryPlan(created_by))


def declare(
    arg: Arg,
    values: dict[str, str],
    build_args: Mapping[str, str],
    imported: Mapping[str, str],
    env: Environment,
) -> dict[str, str]:
    """Give each name of an ARG its value: the user's, else its default, else the global one.

    ``env`` is a view of ``values``: a default sees the names before it. A name without any
    value stays absent. An overridden default is never evaluated. What was set is returned.
    """
    found: dict[str, str] = {}
    for name, default in arg.args:
        if name in build_args:
            value = build_args[name]
        elif default is not None:
            value = arg_default(arg, default, env)
        elif name in imported:
            value = imported[name]
        else:
            continue
        values[name] = found[name] = value
    return found


def step_count(instructions: Iterable[Instruction]) -> int:
    """How many steps a stage shows: its FROM, and each instruction that makes a layer."""
    return 1 + sum(isinstance(instruction, Run | Copy | Add | Workdir) for instruction in instructions)


def stage_label(stage: Stage, stages: Stages) -> str:
    """What progress shows before a step's number; nothing for a single stage without a name."""
    if not stage.name and len(stages.stages) == 1:
        return ""
    return f"{stage.title} "


def _context_step(span: Span) -> Step:
    return Step.make(FromContext(""), name="[internal] load build context", span=span)


def _refuse(instruction: Run, flags: list[tuple[str, object]]) -> None:
    for flag, value in flags:
        if value:
            raise DockerfileError(f"{instruction.keyword.upper()} {flag} is not supported", span=instruction.span)


def _proxies(build_args: Mapping[str, str], declared: Mapping[str, str]) -> tuple[str, ...]:
    """The proxy settings that RUN sees undeclared: however they are spelt, programs find them in both spellings."""
    given = {name.upper(): value for name, value in build_args.items() if name.upper() in _PROXIES}
    pairs = ((spelling, value) for name, value in given.items() for spelling in (name, name.lower()))
    return tuple(f"{name}={value}" for name, value in pairs if name not in declared)


def _network(run: Run, default: Network) -> Network:
    match run.network:
        case "none":
            return "none"
        case "host":
            return "host"
        case _:
            return default


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
