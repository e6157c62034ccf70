"""``run``, with docker's flags."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from image.errors import ContainerNotStarted, InvalidInput, TierceError
from tierce.cli.command import ExitCode, Settings
from tierce.cli.declare import RAW, Ended, argument, command, image_argument, option
from tierce.cli.output import echo
from tierce.cli.run_flags import container_flags, read_options, read_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from image.platform import Platform
    from image.reference import Reference
    from runner.containers.attach import UserStdio
    from runner.containers.options import RunOptions
    from runner.containers.policy import Policy
    from runner.containers.ready import Ready
    from runner.containers.records import Record
    from runner.containers.summons import Summoned
    from runner.runtime.operations import Operation
    from store.store import Store
    from tierce.images import RunnableImage
    from tierce.run import PullPolicy, Surroundings


attach_option = option(
    "-a", "--attach", "streams", multiple=True, metavar="STREAM", help="Show stdout or stderr alone  [both]"
)


@command(
    "run",
    short_help="Run a command in a new container",
    interspersed=False,
    examples="""
tierce run --rm busybox echo hello
tierce run -it --rm -v "$PWD:/src" -w /src busybox sh
tierce run --rm -p 127.0.0.1:8080:80 -e DEBUG=1 web
tierce run --rm --network none --read-only --tmpfs /tmp app
""",
)
@image_argument("image", metavar="IMAGE")
@argument("words", nargs=-1, type=RAW, metavar="[COMMAND] [ARG...]")
@container_flags
@option("-d", "--detach", is_flag=True, help="Let it run in the background, and print its id")
@option("--detach-keys", default="", metavar="KEYS", help="Keys that leave it running  [ctrl-p,ctrl-q]")
@option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on  [on]")
@attach_option
def run(
    settings: Settings,
    /,
    image: str,
    words: Sequence[str],
    detach: bool,
    detach_keys: str,
    sig_proxy: bool,
    streams: Sequence[str],
    **flags: Any,
) -> None:
    """Run a command in a new container of an image, and exit with its exit code.

    The image is pulled when it is not in the store. What follows IMAGE belongs to the
    container. 125: it could not be started; 126: the command can't be executed; 127: there
    is no such command.
    """
    try:
        watched = detach or not flags["remove"]
        with (
            _ready(settings, flags, wanted=not (watched or streams or detach_keys)) as ready,
            settings.store() as store,
            _monitor(wanted=watched) as monitor,
        ):
            options, policy = read_options(words, flags), read_policy(flags)
            shown = _shown(streams, detach=detach)
            chosen = _chosen(settings, store, image, flags)
            if not detach and (_is_plain(store, flags) or _ends_with_us(policy, flags, detach_keys)):
                from tierce.run import run as run_here

                code = run_here(
                    store, chosen, options, surroundings(settings, shown), policy=policy, image_name=image,
                    name=flags["name"], isolation=flags["isolation"], ready=ready,
                )  # fmt: skip
            else:
                code = _run_watched(
                    settings, store, (image, chosen), (options, policy), flags,
                    monitor, detach=detach, keys=detach_keys, proxy=sig_proxy, shown=shown,
                )  # fmt: skip
    except TierceError as error:
        from runner.containers.start import exit_status

        raise ExitCode(exit_status(error), error) from error
    except OSError as error:
        from runner.containers.start import CLI_FAILED

        raise ExitCode(CLI_FAILED, error) from error
    raise Ended(code)


@command(
    "create",
    short_help="Create a new container",
    interspersed=False,
    examples="""
tierce create --name web -p 8080:80 web
tierce start -a web
""",
)
@image_argument("image", metavar="IMAGE")
@argument("words", nargs=-1, type=RAW, metavar="[COMMAND] [ARG...]")
@container_flags
@attach_option
def create(settings: Settings, /, image: str, words: Sequence[str], streams: Sequence[str], **flags: Any) -> None:
    """Create a container without starting it, and print its id. What is attached is said to start."""
    _shown(streams, detach=False)
    with settings.store() as store:
        wanted = (read_options(words, flags), read_policy(flags))
        record = _create(settings, store, (image, _chosen(settings, store, image, flags)), wanted, flags)
    echo(record.id)


def _create(
    settings: Settings,
    store: Store,
    image: tuple[str, RunnableImage],
    wanted: tuple[RunOptions, Policy],
    flags: Mapping[str, Any],
) -> Record:
    from tierce.containers import create as create_container

    cidfile = flags["cidfile"]
    if cidfile and os.path.exists(cidfile):
        raise InvalidInput(f"container id file found, make sure the other container isn't running or delete {cidfile}")
    record, _ = create_container(
        store, image[1], *wanted, image_name=image[0], name=flags["name"], environ=settings.environ, cwd=os.getcwd()
    )
    if cidfile:
        with open(cidfile, "x") as file:
            file.write(record.id)
    return record


def _run_watched(
    settings: Settings,
    store: Store,
    image: tuple[str, RunnableImage],
    wanted: tuple[RunOptions, Policy],
    flags: Mapping[str, Any],
    monitor: Summoned | None,
    *,
    detach: bool,
    keys: str,
    proxy: bool,
    shown: UserStdio | None,
) -> int:
    """Through a monitor: in the background, or followed by this command."""
    from runner.containers.records import Records
    from tierce.cli.containers import control, follow

    options = wanted[0]
    if options.tty and options.interactive and not detach and not os.isatty(0):
        raise InvalidInput("the input device is not a TTY")
    record = _create(settings, store, image, wanted, flags)
    over = control(settings, Records(store))
    try:
        return follow(
            over.start(record, attached=not detach, monitor=monitor), over, record,
            attached=not detach, interactive=options.interactive and not detach, keys=keys, proxy=proxy, user=shown,
            started=(lambda: echo(record.id)) if detach else (lambda: None),
        )  # fmt: skip
    except ContainerNotStarted:
        if wanted[1].remove:
            from runner.containers.remove import remove

            over.settle(record)
            remove(over.records, record, volumes=True)
        raise


def _ready(settings: Settings, flags: Mapping[str, Any], *, wanted: bool) -> AbstractContextManager[Ready | None]:
    """The container's process, which gets ready while this one finds out what to run: for root, away from a terminal."""
    watched_here = flags["isolation"] not in {"chroot", "emulated"} and not (flags["tty"] or flags["cidfile"])
    if not wanted or not watched_here or os.geteuid() != 0:
        return nullcontext()
    from runner.containers.ready import Ready, own_stdio

    stdio = own_stdio(interactive=flags["interactive"])
    try:
        return nullcontext() if stdio is None else Ready(settings.environ, stdio)
    except TierceError:
        return nullcontext()  # where nothing can be contained there are other ways


def _monitor(*, wanted: bool) -> AbstractContextManager[Summoned | None]:
    """One that gets ready while this process finds out what to run."""
    if not wanted:
        return nullcontext()
    from runner.containers.summons import summon

    return summon()


def _shown(streams: Sequence[str], *, detach: bool) -> UserStdio | None:
    """Where output goes: what ``--attach`` does not name, nowhere. None for where it always goes. Raises InvalidInput."""
    if not streams:
        return None
    from runner.containers.attach import UserStdio

    wanted = {word.lower() for word in streams}
    if unknown := wanted - {"stdin", "stdout", "stderr"}:
        raise InvalidInput(f"invalid --attach {min(unknown)!r}: there are stdin, stdout and stderr")
    if detach:
        raise InvalidInput("conflicting options: --attach and --detach")
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    return UserStdio(0, 1 if "stdout" in wanted else null, 2 if "stderr" in wanted else null)


def _is_plain(store: Store, flags: Mapping[str, Any]) -> bool:
    """Whether there are no namespaces to run it in, so that this process must stay with it."""
    from runner.runtime.privileges import probe

    return flags["isolation"] in {"chroot", "emulated"} or not probe(store.root).contains


def _ends_with_us(policy: Policy, flags: Mapping[str, Any], keys: str) -> bool:
    """Nobody can look at it later or leave it, so it needs no monitor beside this process."""
    return policy.remove and policy.health.cmd is None and not (flags["cidfile"] or keys)


class _Pulling:
    """When and how to pull the image."""

    def __init__(
        self, settings: Settings, policy: PullPolicy, platform: str | None, *, quiet: bool, tls_verify: bool
    ) -> None:
        self.policy: PullPolicy = policy
        self._settings = settings
        self._platform = platform
        self._quiet = quiet
        self._tls_verify = tls_verify

    @property
    def platform(self) -> Platform | None:
        """Raises InvalidPlatform."""
        if self._platform is None:
            return None
        from image.platform import Platform
        from tierce.host_platform import host_platform

        return Platform.parse(self._platform, host_platform())

    def pull(self, store: Store, reference: Reference) -> Reference:
        """The full name by which the store has the image from now on, or had it already."""
        from tierce.cli.transfer import open_registries, pull_image

        with open_registries(self._settings, tls_verify=self._tls_verify) as registries:
            if self.policy == "missing":
                for meant in registries.conf.candidates(reference):
                    if store.metadata.name(str(meant)) is not None and reference.short:
                        return meant
                echo(f"Unable to find image '{reference.familiar}' locally", err=True)
            return pull_image(self._settings, reference, store, registries, platform=self._platform, quiet=self._quiet)


def _chosen(settings: Settings, store: Store, word: str, flags: Mapping[str, Any]) -> RunnableImage:
    from tierce.run import choose_image

    pulling = _Pulling(
        settings, flags["policy"], flags["platform"], quiet=flags["quiet"], tls_verify=flags["tls_verify"]
    )
    return choose_image(store, word, pulling.platform, pulling.policy, lambda reference: pulling.pull(store, reference))


def surroundings(settings: Settings, shown: UserStdio | None = None) -> Surroundings:
    from tierce.run import Surroundings

    def trace(operation: Operation) -> None:
        echo(str(operation), err=True)

    return Surroundings(
        settings.environ,
        os.getcwd(),
        lambda line: echo(f"WARNING: {line}", err=True),
        trace if settings.debug else None,
        shown,
    )
