"""``system df``, ``system info``, ``system check``, ``version``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Self

from tierce import VERSION
from tierce.check import Finding, Hashed, Problem, Unused, check_store, repair
from tierce.cli.command import Settings, format_option
from tierce.cli.declare import Ended, command, option
from tierce.cli.images import image_rows
from tierce.cli.output import echo
from tierce.cli.tables import align, render, render_documents
from tierce.cli.terminal import LiveBlock, is_live
from tierce.cli.units import human_duration, human_size
from tierce.documents import Record
from tierce.images import repository_digests
from tierce.usage import ContainerUsage, Usage, VolumeUsage, measure

HEADERS: Final = {
    "Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
}  # fmt: skip


@command(
    "df",
    short_help="Show what takes how much space",
    examples="""
tierce system df
tierce system df -v
tierce system df --format '{{.Type}}: {{.Size}}'
""",
)
@option("-v", "--verbose", is_flag=True, help="Each image, container, volume and step")
@format_option
def df(settings: Settings, verbose: bool, form: str) -> None:
    """Show how much space images, containers, volumes, the build cache and unused files take.

    Blobs and unpacked layers that several need are counted once.
    """
    with settings.store() as store:
        usage = measure(store)
        known = repository_digests(store.metadata)
    if not verbose:
        echo(render(usage_rows(usage), HEADERS, list(HEADERS), form), nl=False)
    elif form:
        echo(render_documents([usage_document(usage)], form), nl=False)
    else:
        echo(verbose_usage(usage, known, settings.clock()), nl=False)


def usage_rows(usage: Usage) -> list[dict[str, str]]:
    """The kinds of things that take space. What no container needs can be reclaimed."""
    used = {container.record.image for container in usage.containers}
    active = sum(str(image.record.target.digest) in used for image in usage.images)
    idle = [container for container in usage.containers if not container.record.state.is_running]
    spare = [volume for volume in usage.volumes if not volume.links]

    def total(things: Iterable[ContainerUsage | VolumeUsage]) -> int:
        return sum(thing.size for thing in things)

    containers, volumes = len(usage.containers), len(usage.volumes)
    return [
        _usage_row("Images", len(usage.images), active, usage.images_size, usage.images_free),
        _usage_row("Containers", containers, containers - len(idle), total(usage.containers), total(idle)),
        _usage_row("Local Volumes", volumes, volumes - len(spare), total(usage.volumes), total(spare)),
        _usage_row("Build Cache", len(usage.cache), 0, usage.cache_size, usage.cache_size),
        _usage_row("Unused", 0, 0, usage.unused, usage.unused),
    ]


def _usage_row(kind: str, count: int, active: int, size: int, reclaimable: int) -> dict[str, str]:
    share = f" ({reclaimable * 100 // size}%)" if size else ""
    return {
        "Type": kind, "TotalCount": str(count), "Active": str(active),
        "Size": human_size(size), "Reclaimable": human_size(reclaimable) + share,
    }  # fmt: skip


def usage_document(usage: Usage) -> Record:
    """``df -v`` for templates. Sizes in bytes."""
    return Record(
        Images=[
            Record(ID=image.record.config, RepoTags=list(image.record.names), Size=image.size, UniqueSize=image.unique)
            for image in usage.images
        ],
        Containers=[
            Record(ID=one.record.id, Names=one.record.name, Image=one.record.made.image_name, Size=one.size)
            for one in usage.containers
        ],
        Volumes=[Record(Name=volume.name, Links=volume.links, Size=volume.size) for volume in usage.volumes],
        BuildCache=[
            Record(ID=record.key, Description=record.label, Size=record.size, UsageCount=record.uses)
            for record in usage.cache
        ],
        ImagesSize=usage.images_size,
        BuildCacheSize=usage.cache_size,
        UnusedSize=usage.unused,
    )


def verbose_usage(usage: Usage, registry_digests: Mapping[str, str], now_s: float) -> str:
    """Docker's tables, with the sizes that were measured."""
    rows = [["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE"]]
    for image in usage.images:
        sizes = [human_size(size) for size in (image.size, image.size - image.unique, image.unique)]
        names = image_rows([image.record], registry_digests, lambda _: True, now_s)
        rows += [[row["Repository"], row["Tag"], row["ID"], row["CreatedSince"], *sizes] for row in names]
    return (
        f"Images space usage:\n\n{align(rows)}\n"
        f"Containers space usage:\n\n{_container_table(usage, now_s)}\n"
        f"Local Volumes space usage:\n\n{_volume_table(usage)}\n"
        f"Build cache usage: {human_size(usage.cache_size)}\n\n{cache_table(usage, now_s)}\n"
        f"Unused files: {human_size(usage.unused)}\n"
    )


def _container_table(usage: Usage, now_s: float) -> str:
    rows = [["CONTAINER ID", "IMAGE", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"]]
    for one in usage.containers:
        record = one.record
        volumes = sum(mount.kind == "volume" for mount in record.made.options.mounts)
        age = f"{human_duration(now_s - record.created_s)} ago"
        rows.append([
            record.id[:12], record.made.image_name, str(volumes), human_size(one.size), age, record.state.status,
            record.name,
        ])  # fmt: skip
    return align(rows)


def _volume_table(usage: Usage) -> str:
    rows = [["VOLUME NAME", "LINKS", "SIZE"]]
    return align([*rows, *([volume.name, str(volume.links), human_size(volume.size)] for volume in usage.volumes)])


def cache_table(usage: Usage, now_s: float) -> str:
    """The cached steps, most recently used first."""
    rows = [["CACHE ID", "SIZE", "CREATED", "LAST USED", "USAGE", "DESCRIPTION"]]
    for record in usage.cache:
        ages = [f"{human_duration(now_s - moment)} ago" for moment in (record.created_s, record.used_s)]
        label = record.label if len(record.label) <= 60 else record.label[:59] + "\u2026"
        key = record.key.removeprefix("sha256:")[:12]
        rows.append([key, human_size(record.size), *ages, str(record.uses), label])
    return align(rows)


@command(
    "info",
    short_help="Show the store, the kernel and what is possible here",
    examples="""
tierce system info
tierce info --format '{{.DockerRootDir}} {{.CgroupVersion}}'
tierce info --format json
""",
)
@option("-f", "--format", "form", default="", metavar="FORMAT", help="'json' or a Go TEMPLATE")
def info(settings: Settings, form: str) -> None:
    """Show the store, the kernel's features, and the privileges this user has."""
    from runner.runtime.privileges import probe
    from tierce.info import system_info

    with settings.store() as store:
        document = system_info(store, probe(store.root))
    if form:
        text = render_documents([document], "{{json .}}" if form == "json" else form)
    else:
        text = "".join(f"{line}\n" for line in _info_lines(document))
    echo(text, nl=False)


_TITLES: Final = {
    "ServerVersion": "Version", "DockerRootDir": "Root", "Driver": "Storage driver",
    "BackingFilesystem": "Backing filesystem", "KernelVersion": "Kernel", "OperatingSystem": "Operating system",
    "NCPU": "CPUs", "MemTotal": "Memory", "RootFree": "Space left", "RootTotal": "Space in total",
    "KernelFeatures": "Kernel features",
}  # fmt: skip
_HIDDEN: Final = {"OSType", "CgroupVersion", "CgroupLayout"}
_SIZES: Final = {"MemTotal", "RootFree", "RootTotal"}


def _info_lines(document: Record) -> Iterator[str]:
    for key, value in document.items():
        title = _TITLES.get(key, key)
        if isinstance(value, dict):
            yield f"{title}:"
            yield from (f"  {name}: {found}" for name, found in value.items())
        elif key not in _HIDDEN:
            yield f"{title}: {human_size(value) if key in _SIZES else value}"


@command(
    "check",
    short_help="Verify every byte and record of the store",
    examples="""
tierce system check
tierce system check --repair
""",
)
@option("--repair", "repairs", is_flag=True, help="Write index.json anew and remove leftovers, then look again")
@option("-q", "--quiet", is_flag=True, help="Only problems")
def check(settings: Settings, repairs: bool, quiet: bool) -> None:
    """Hash every blob, compare every record with the disk. Exits with 1 when something is wrong."""
    with settings.store() as store:
        store.sweep_dead_sessions()
        if repairs:
            repair(store)
        with _HashProgress(quiet or not is_live(sys.stderr, settings.environ)) as progress:
            findings = list(check_store(store, progress.show))
        blobs, layers, images = (
            sum(1 for _ in store.content.digests()), len(store.metadata.layers()), len(store.metadata.images()),
        )  # fmt: skip
    problems = [finding for finding in findings if isinstance(finding, Problem)]
    echo("".join(_finding_lines(findings, quiet=quiet)), nl=False)
    if problems:
        echo(f"tierce: {len(problems)} problem{'s' if len(problems) > 1 else ''} in {settings.root}", err=True)
        raise Ended(1)
    if not quiet:
        echo(f"{settings.root} is whole: {images} images, {blobs} blobs, {layers} layers")


def _finding_lines(findings: list[Finding], *, quiet: bool) -> Iterator[str]:
    for finding in findings:
        match finding:
            case Problem(area, message):
                yield f"{area}: {message}\n"
            case Unused(what, size) if not quiet:
                yield f"unused {what}: {human_size(size)} (tierce system prune frees them)\n"


class _HashProgress:
    """One line that says how far the hashing is."""

    def __init__(self, silent: bool) -> None:
        self._block = None if silent else LiveBlock(sys.stderr)
        self._shown = -1

    def show(self, progress: Hashed) -> None:
        percent = progress.done * 100 // progress.total if progress.total else 100
        if self._block is not None and percent != self._shown:
            self._shown = percent
            self._block.draw([f"checking blobs: {percent}% of {human_size(progress.total)}"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._block is not None:
            self._block.erase()
            self._block.close()


@command(
    "version",
    short_help="Show the version",
    examples="""
tierce version
tierce version --format '{{.Client.Version}}'
""",
)
@option("-f", "--format", "form", default="", metavar="FORMAT", help="'json' or a Go TEMPLATE")
def version(_settings: Settings, /, form: str) -> None:
    """Show the version, and that of the Python that runs it."""
    import platform

    client = Record(
        Version=VERSION, PythonVersion=platform.python_version(), Os=sys.platform, Arch=platform.machine()
    )  # fmt: skip
    if form:
        echo(render_documents([Record(Client=client)], "{{json .}}" if form == "json" else form), nl=False)
        return
    rows = {
        "Version": client["Version"],
        "Python version": client["PythonVersion"],
        "OS/Arch": f"{client['Os']}/{client['Arch']}",
    }
    echo("Tierce:\n" + "".join(f" {name + ':':<16} {value}\n" for name, value in rows.items()), nl=False)
