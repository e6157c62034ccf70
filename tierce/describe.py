"""What is said of an image: the document of ``inspect``, the rows of ``history``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from image import media_types
from image.config import ContainerConfig, Healthcheck
from image.digest import chain_ids
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass
from store.store import Store
from tierce.documents import NIL_LIST, NIL_MAP, Record
from tierce.images import Found, RunnableImage, repository_digests, runnable


def inspect_document(store: Store, found: Found, wanted: Platform | None = None) -> Record:
    """The image as docker's ``image inspect`` describes it.

    Raises ReferenceNotFound when the platform is not in the store.
    """
    record = found.record
    image = runnable(store.content, record.target, wanted, name=found.name or record.config)
    config = image.config
    known = repository_digests(store.metadata)
    references = [Reference.parse(name) for name in record.names]
    digests = dict.fromkeys(f"{r.familiar_repository}@{known.get(str(r), record.target.digest)}" for r in references)
    return Record(
        Id=record.config,
        RepoTags=[reference.familiar for reference in references if reference.tag and not reference.digest],
        RepoDigests=list(digests),
        Parent="",
        Comment=config.history[-1].comment if config.history else "",
        Created=config.created,
        Author=config.author,
        Config=container_document(config.config),
        Architecture=config.platform.architecture,
        Variant=config.platform.variant,
        Os=config.platform.os,
        OsVersion=config.platform.os_version,
        Size=record.size,
        VirtualSize=record.size,
        GraphDriver=_graph_driver(store, image),
        RootFS=Record(Type="layers", Layers=[str(diff_id) for diff_id in config.diff_ids]),
        Metadata=Record(LastTagTime=_last_tag_time(store, record.names)),
        Descriptor=Record(
            mediaType=record.target.media_type, digest=str(record.target.digest), size=record.target.size
        ),
    )  # fmt: skip


def container_document(config: ContainerConfig) -> Record:
    """``Config``, of an image or a container."""

    def strings(words: Iterable[str] | None) -> Any:
        found = None if words is None else list(words)
        return found or (NIL_LIST if found is None else [])

    def empty_objects(names: Sequence[str]) -> Any:
        return {name: {} for name in names} or NIL_MAP

    return Record(
        User=config.user,
        ExposedPorts=empty_objects(config.exposed_ports),
        Env=strings(config.env or None),
        Cmd=strings(config.cmd),
        Entrypoint=strings(config.entrypoint),
        Volumes=empty_objects(config.volumes),
        WorkingDir=config.working_dir,
        OnBuild=strings(config.on_build or None),
        Labels=dict(config.labels) or NIL_MAP,
        StopSignal=config.stop_signal,
        Shell=strings(config.shell or None),
        Healthcheck=_healthcheck(config.healthcheck) if config.healthcheck else None,
    )


def _healthcheck(check: Healthcheck) -> Record:
    return Record(
        Test=list(check.test), Interval=check.interval_ns, Timeout=check.timeout_ns,
        StartPeriod=check.start_period_ns, StartInterval=check.start_interval_ns, Retries=check.retries,
    )  # fmt: skip


def _graph_driver(store: Store, image: RunnableImage) -> Record:
    """Where the layers are unpacked, as docker's overlay2 driver tells it."""
    chain = chain_ids(image.config.diff_ids)
    stack = store.metadata.layer_stack(chain[-1]) if chain else []
    data: dict[str, Any] = {}
    if stack:
        top, *below = [str(store.layers.diff(layer)) for layer in stack]
        data = {"UpperDir": top} | ({"LowerDir": ":".join(below)} if below else {})
    return Record(Name="overlay2", Data=data or NIL_MAP)


def _last_tag_time(store: Store, names: Sequence[str]) -> str:
    updated = [record.updated_s for record in store.metadata.names() if record.name in names]
    return datetime.fromtimestamp(max(updated), UTC).isoformat().replace("+00:00", "Z") if updated else ""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of an image's history. ``size`` in bytes: unpacked where known, else of the blob."""

    id: str
    created: str
    created_by: str
    size: int
    comment: str


def history(store: Store, found: Found, wanted: Platform | None = None) -> list[Step]:
    """The steps an image was made of, newest first; only the first has an id, as docker shows it."""
    image = runnable(store.content, found.record.target, wanted, name=found.name or found.record.config)
    sizes = iter(_layer_sizes(store, image))
    entries: list[tuple[Mapping[str, str], int]] = [
        (
            {"created": e.created, "created_by": e.created_by, "comment": e.comment},
            0 if e.empty_layer else next(sizes, 0),
        )
        for e in image.config.history
    ]
    entries += [({"created": image.config.created, "created_by": "", "comment": ""}, size) for size in sizes]
    steps = [Step("<missing>", size=size, **entry) for entry, size in reversed(entries)]
    if steps:
        steps[0] = Step(found.record.config, steps[0].created, steps[0].created_by, steps[0].size, steps[0].comment)
    return steps


def _layer_sizes(store: Store, image: RunnableImage) -> list[int]:
    sizes = []
    for chain_id, layer in zip(chain_ids(image.config.diff_ids), image.manifest.layers, strict=False):
        unpacked = store.metadata.layer(chain_id) if media_types.is_layer(layer.media_type) else None
        sizes.append(unpacked.size if unpacked else layer.size)
    return sizes
