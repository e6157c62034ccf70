"""The instructions, one frozen dataclass a keyword.

interpret.py makes them from nodes, with words as written. expand.py gives a copy with
variables replaced. The planner is a ``match`` over ``Instruction``.

Spec: the Dockerfile reference; dockerfile.md 1.3 to 1.6.
"""

from __future__ import annotations

from builder.dockerfile.parse import Heredoc, heredoc_operator
from image.config import Healthcheck as HealthcheckConfig
from image.span import Span
from image.value import dataclass

SCRIPT_DIRECTORY = "/dev/pipes"
"""Where a RUN heredoc that starts with ``#!`` is mounted, under its delimiter's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """What every instruction knows of its source."""

    span: Span
    original: str
    """The logical line, as progress shows it."""
    keyword: str
    """As written."""
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShellForm:
    """A command for SHELL to run; one string, never expanded by the builder."""

    text: str

    def argv(self, shell: tuple[str, ...]) -> tuple[str, ...]:
        """The process's arguments under ``shell``."""
        return (*shell, self.text)


@dataclass(frozen=True, slots=True)
class ExecForm:
    """A command as a JSON array: the arguments themselves, without a shell."""

    args: tuple[str, ...]

    def argv(self, shell: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG002 - one signature for both forms
        """The arguments; ``shell`` has no part in them."""
        return self.args


Command = ShellForm | ExecForm


@dataclass(frozen=True, slots=True)
class Script:
    """A file to mount read-only and executable in ``SCRIPT_DIRECTORY`` while a RUN lasts."""

    name: str
    content: bytes

    @property
    def path(self) -> str:
        return f"{SCRIPT_DIRECTORY}/{self.name}"


@dataclass(frozen=True, slots=True)
class InlineFile:
    """A heredoc source of COPY or ADD: a file of mode 0644 owned by root."""

    name: str
    text: str
    expand: bool

    @property
    def content(self) -> bytes:
        return self.text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class From(_Statement):
    """``FROM [--platform=P] IMAGE [AS NAME]``. ``name`` is in lower case, "" if there is none."""

    image: str
    name: str = ""
    platform: str = ""
    written_name: str = ""
    written_as: str = ""


@dataclass(frozen=True, slots=True)
class Run(_Statement):
    """``RUN``. ``mounts`` are as written: mounts.py parses them once variables are known."""

    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[str, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()

    def process(self, shell: tuple[str, ...]) -> tuple[tuple[str, ...], Script | None]:
        """The arguments to run, and the script that must be mounted for them.

        A command that is only a heredoc runs its body, by the shell or, if it starts
        with ``#!``, as a program. Any other heredoc is left to the shell.

        Spec: dockerfile.md 1.4.
        """
        if isinstance(self.command, ExecForm) or not self.heredocs:
            return self.command.argv(shell), None
        first = self.heredocs[0]
        if heredoc_operator(self.command.text) is None:
            bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in self.heredocs)
            return (*shell, self.command.text + bodies), None
        if first.body.startswith("#!"):
            script = Script(first.name, first.body.encode("utf-8", "surrogateescape"))
            return (script.path,), script
        return (*shell, first.body), None


@dataclass(frozen=True, slots=True)
class Copy(_Statement):
    """``COPY``. ``inline`` files are copied after ``sources``, as docker does."""

    sources: tuple[str, ...]
    destination: str
    inline: tuple[InlineFile, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Add(_Statement):
    """``ADD``. None for a flag means that its default depends on the kind of source."""

    sources: tuple[str, ...]
    destination: str
    inline: tuple[InlineFile, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


@dataclass(frozen=True, slots=True)
class Env(_Statement):
    """``ENV``. ``legacy``: written ``ENV name value``."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Label(_Statement):
    """``LABEL``. ``legacy``: written ``LABEL name value``."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Arg(_Statement):
    """``ARG``, with the default of each name; None where there is none."""

    args: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Workdir(_Statement):
    """``WORKDIR``."""

    path: str


@dataclass(frozen=True, slots=True)
class User(_Statement):
    """``USER``: name or uid, with ``:group`` or ``:gid``."""

    user: str


@dataclass(frozen=True, slots=True)
class Cmd(_Statement):
    """``CMD``."""

    command: Command


@dataclass(frozen=True, slots=True)
class Entrypoint(_Statement):
    """``ENTRYPOINT``; an empty ExecForm unsets it."""

    command: Command


@dataclass(frozen=True, slots=True)
class Expose(_Statement):
    """``EXPOSE``, words sorted. expand.py turns them into ``80/tcp``."""

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Volume(_Statement):
    """``VOLUME``."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shell(_Statement):
    """``SHELL``; never empty."""

    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stopsignal(_Statement):
    """``STOPSIGNAL``; expand.py validates the signal."""

    signal: str


@dataclass(frozen=True, slots=True)
class Healthcheck(_Statement):
    """``HEALTHCHECK``, in the form that the image configuration holds."""

    check: HealthcheckConfig


@dataclass(frozen=True, slots=True)
class Onbuild(_Statement):
    """``ONBUILD``: the text that the configuration holds, and what it means."""

    expression: str
    trigger: Instruction


@dataclass(frozen=True, slots=True)
class Maintainer(_Statement):
    """``MAINTAINER``."""

    author: str


Instruction = (
    From | Run | Copy | Add | Env | Label | Arg | Workdir | User | Cmd | Entrypoint
    | Expose | Volume | Shell | Stopsignal | Healthcheck | Onbuild | Maintainer
)  # fmt: skip
