"""``sync``: keep repositories equal to others, once or by schedule."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from image.value import replace
from tierce.cli.command import Settings
from tierce.cli.declare import Choice, IntRange, WrongUsage, argument, command, option
from tierce.cli.foreign_flags import refused, signing_flags
from tierce.cli.output import echo
from tierce.cli.registry_flags import Side, retry_options, retry_policy, side_options
from tierce.cli.transfer import PLATFORM, create_repository_option, log_format_option, transfer_view

if TYPE_CHECKING:
    from datetime import datetime

    from image.platform import Platform
    from tierce.cli.progress import TransferView
    from tierce.cli.sync_templates import SyncTemplates
    from transfer.registries import Registries
    from transfer.registry.retry import Retry
    from transfer.sync.ends import Ends, ProgressOf
    from transfer.sync.perform import Sync, SyncOptions
    from transfer.sync.plan import Pair
    from transfer.sync.report import Outcome, Report
    from transfer.sync.rules import Configuration, Rule

_WORDS: Final = ("once", "check", "server")
_PARALLEL: Final = 4


@command(
    "sync",
    short_help="Keep repositories equal to others",
    examples="""
tierce sync -c mirror.yml                          # all of a regsync file, once
tierce sync --dry-run -c mirror.yml                # what that would do, and the pulls it needs
tierce sync server -c mirror.yml                   # by the schedules in the file
tierce sync --src docker --dest docker docker.io/library/busybox registry.example.com/mirror
tierce sync --src yaml --dest docker skopeo.yml registry.example.com/mirror
tierce sync --src docker --dest dir --scoped registry.example.com/busybox /media/usb
""",
)
@argument("words", nargs=-1, metavar="[once|check|server] | SOURCE DESTINATION")
@option("-c", "--config", metavar="FILE", help="Rules in regsync's YAML; - is standard input")
@option("-s", "--src", type=Choice(("docker", "dir", "yaml")), help="What SOURCE is, as skopeo has it")
@option("-d", "--dest", type=Choice(("docker", "dir")), help="What DESTINATION is")
@option("--scoped", is_flag=True, help="Whole source names below DESTINATION, registry included")
@option("--platform", "platforms", multiple=True, metavar=PLATFORM, help="Only these of several platforms  [all]")
@option("-a", "--all", "everything", is_flag=True, help="All platforms, as is done without --platform")
@option("-n", "--dry-run", is_flag=True, help="Say what would be done, and the pulls it needs; 'check' is the same")
@option("--delete", is_flag=True, help="Delete tags that the source does not have")
@option("--missing", is_flag=True, help="Copy only tags that the target does not have")
@option("--keep-going/--abort-on-error", "keep_going", default=None, help="Go on after a failure  [with -c]")
@option("-j", "--jobs", type=IntRange(1, 64), metavar="N", help="Images at once  [4, or the file's 'parallel']")
@option("--report", metavar="FILE", help="Write what was done as JSON; - is standard output")
@option("-q", "--quiet", is_flag=True, help="Only failures, and the report")
@log_format_option
@option("--authfile", metavar="FILE", help="Credentials instead of docker's and podman's files")
@option("--preserve-digests", is_flag=True, help="Accepted: digests stay, but for a choice of platforms")
@refused("-f", "--format", instead="sync keeps digests: convert single images by copy --format")
@refused(
    "--remove-signatures", instead="sync keeps what belongs to an image: use copy --remove-signatures", value=False
)
@signing_flags
@create_repository_option
@retry_options
@side_options("dest", "targets")
@side_options("src", "sources")
def sync(
    settings: Settings,
    /,
    words: Sequence[str],
    config: str | None,
    src: str | None,
    dest: str | None,
    scoped: bool,
    platforms: Sequence[str],
    everything: bool,
    dry_run: bool,
    delete: bool,
    missing: bool,
    keep_going: bool | None,
    jobs: int | None,
    report: str | None,
    quiet: bool,
    authfile: str | None,
    preserve_digests: bool,  # noqa: ARG001  # skopeo's; it is always so
    retry_times: int | None,
    retry_delay: str | None,
    create_repository: bool,
    **sides: Any,
) -> None:
    """Copy what differs. A tag that has not changed costs one HEAD on each side.

    Signatures and what else belongs to an image by its tag come along. The exit code is 1 when
    anything failed; the other images are copied all the same, unless --abort-on-error.
    """
    from datetime import datetime

    from tierce.cli.sync_templates import SyncTemplates
    from tierce.host_platform import host_platform
    from transfer.sync.perform import SyncOptions

    if everything and platforms:
        raise WrongUsage("--all and --platform are mutually exclusive")
    here = host_platform()
    templates = SyncTemplates(settings.environ, lambda: datetime.fromtimestamp(settings.clock()).astimezone())
    word, configuration = _configuration(words, config, (src, dest), platforms, here, templates, scoped=scoped)
    options = SyncOptions(
        dry_run=dry_run or word == "check",
        delete=delete,
        missing_only=missing,
        keep_going=config is not None if keep_going is None else keep_going,
        parallel=jobs or configuration.parallel or _PARALLEL,
    )
    reach = {"source": Side.take("src", sides, authfile), "target": Side.take("dest", sides, authfile)}
    with ExitStack() as stack:
        retry = retry_policy(retry_times, retry_delay)
        shown = stack.enter_context(transfer_view(settings, quiet=quiet, blobs_have_lines=False))
        ends = _ends(
            settings, stack, configuration, reach, retry, here, shown.image, create_repository=create_repository
        )
        view = _View(shown, options, report, quiet=quiet)
        if word == "server":
            _serve(settings, ends, configuration.rules, options, templates, view)
        else:
            view.end(_sync(ends, options, templates, view).run(configuration.rules))


def _configuration(
    words: Sequence[str], config: str | None, transports: tuple[str | None, str | None], platforms: Sequence[str],
    here: Platform, templates: SyncTemplates, *, scoped: bool,
) -> tuple[str, Configuration]:  # fmt: skip
    """What is asked for, in regsync's words or in skopeo's."""
    from image.platform import Platform
    from transfer.sync import regsync, skopeo

    src, dest = transports
    if config is not None:
        if src or dest or scoped or platforms:
            raise WrongUsage("--config goes without --src, --dest, --scoped and --platform: the file says it")
        if len(words) > 1 or any(word not in _WORDS for word in words):
            raise WrongUsage(f"with --config there is one word at most: {', '.join(_WORDS)}")
        return "".join(words) or "once", regsync.parse(_read(config), config, templates.render, here)
    if not (src and dest) or len(words) != 2:
        raise WrongUsage("needs --config FILE, or --src and --dest with SOURCE and DESTINATION")
    wanted = [Platform.parse(platform, here) for platform in platforms]
    destination = skopeo.Destination("dir" if dest == "dir" else "docker", words[1], scoped)
    match src:
        case "yaml":
            return "once", skopeo.from_yaml(_read(words[0]), words[0], destination, wanted)
        case "dir":
            return "once", skopeo.from_directory(words[0], destination)
        case _:
            return "once", skopeo.from_registry(words[0], destination, wanted)


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()


def _name_backup(templates: SyncTemplates, pair: Pair) -> str:
    """regsync's data: ``.Ref`` is the image that is replaced."""
    from image.reference import Reference

    reference = Reference.parse(pair.target.removeprefix("docker://").removeprefix("oci:"))
    ref = {
        "Registry": reference.domain, "Repository": reference.path, "Tag": reference.tag or "",
        "Digest": str(reference.digest or ""), "Reference": str(reference),
    }  # fmt: skip
    step = {"Source": pair.rule.source.removeprefix("docker://"), "Target": pair.rule.target.removeprefix("docker://")}
    return templates.render(pair.rule.backup, {"Ref": ref, "Step": step, "Sync": step})


def _ends(
    settings: Settings, stack: ExitStack, configuration: Configuration, reach: Mapping[str, Side], retry: Retry,
    here: Platform, progress: ProgressOf, *, create_repository: bool,
) -> Ends:  # fmt: skip
    """Connections to each host as the file says, or else as the flags for its side do."""
    from functools import cache
    from threading import Lock

    from transfer.sync.ends import Ends

    lock = Lock()

    @cache
    def open_for(side: str, host: str) -> Registries:
        access = configuration.access.get(host)
        chosen = reach[side] if access is None else reach[side].overridden(access, own=configuration.own_credentials)
        return stack.enter_context(
            chosen.registries(settings, retry, destination=side == "target", create_repository=create_repository)
        )

    def registries(side: str, host: str) -> Registries:
        with lock:
            return open_for(side, host if host in configuration.access else "")

    return Ends(registries, here, retry, progress)


def _sync(ends: Ends, options: SyncOptions, templates: SyncTemplates, view: _View) -> Sync:
    from transfer.sync.perform import Sync

    return Sync(ends, options, name_backup=partial(_name_backup, templates), tell=view.tell, note=view.note)


class _View:
    """Lines as things happen, beside the progress of what is under way; a summary and a report at the end.

    Of ``--log-format json``, outcomes and the summary are events too, and no lines.
    """

    def __init__(self, shown: TransferView, options: SyncOptions, report: str | None, *, quiet: bool) -> None:
        self._shown = shown
        self._options = options
        self._report = report
        self._quiet = quiet

    def tell(self, outcome: Outcome) -> None:
        failed = outcome.status == "failed"
        if self._shown.tell("outcome", **outcome.members()):
            return
        if failed or (not self._quiet and outcome.is_news and self._report != "-"):
            self._shown.aside(lambda: echo(outcome.line(), err=failed))

    def note(self, text: str) -> None:
        if not self._shown.tell("message", text=text):
            self._shown.aside(lambda: echo(text, err=True))

    def end(self, report: Report) -> None:
        """Raises TierceError when anything failed."""
        from image.errors import TierceError

        self.show(report)
        if report.failed:
            counted = report.count()
            raise TierceError(f"sync: {counted['failed']} failed, {counted['not tried']} were not tried")

    def show(self, report: Report) -> None:
        if self._report:
            document = json.dumps(report.members(), indent=2) + "\n"
            if self._report == "-":
                self._shown.aside(lambda: echo(document, nl=False))
            else:
                with open(self._report, "w", encoding="utf-8") as file:
                    file.write(document)
        lines = [report.summary(), *([report.pulls_line()] if self._options.dry_run else [])]
        if self._quiet or self._report == "-" or self._shown.tell("summary", text="; ".join(lines)):
            return
        self._shown.aside(lambda: echo("\n".join(lines)))


def _serve(
    settings: Settings, ends: Ends, rules: Sequence[Rule], options: SyncOptions, templates: SyncTemplates, view: _View,
) -> None:  # fmt: skip
    """Until a signal ends it: first what is missing, then each rule when it is due."""
    import time
    from datetime import datetime

    from transfer.sync.schedule import next_due

    def now() -> datetime:
        return datetime.fromtimestamp(settings.clock()).astimezone()

    timed = [rule for rule in rules if rule.due]
    for rule in rules:
        if not rule.due:
            view.note(f"{rule.source}: no schedule and no interval, so the server leaves it out")
    if not timed:
        raise WrongUsage("nothing in the file has a schedule or an interval")
    due = [(next_due(rule.due, now()), rule) for rule in timed]
    view.show(_sync(ends, replace(options, missing_only=True), templates, view).run(timed))
    while True:
        moment = min(when for when, _ in due)
        time.sleep(max(0.0, (moment - now()).total_seconds()))
        ready = [rule for when, rule in due if when <= now()]
        view.show(_sync(ends, options, templates, view).run(ready))
        due = [(next_due(rule.due, now()) if rule in ready else when, rule) for when, rule in due]
