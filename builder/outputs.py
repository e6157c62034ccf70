"""The solved graph to an image: layers in their form, configuration, history, manifest, index.

``image_config`` and the documents are pure; ``write_image`` and ``write_index`` put them into
the store. Where they go from there is composed in ``tierce.build.outputs``.

Spec: dockerfile.md 6 (SOURCE_DATE_EPOCH), 7 (configuration and history).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from builder.graph import Graph
from builder.output_form import DEFAULT_FORM, ImageForm
from builder.results import BuiltLayer, Stack
from image import media_types
from image.config import History, ImageConfig
from image.descriptor import Descriptor
from image.manifest import Index, Manifest
from image.value import dataclass, replace
from store.store import Session

_COMMENT = "buildkit.dockerfile.v0"
"""What docker's BuildKit writes as ``comment``; tools read how to show an entry from it."""

_CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image whose blobs are all in the store. ``id`` is its config, as docker counts ids."""

    manifest: Descriptor
    id: Descriptor
    config: ImageConfig


def write_image(
    session: Session,
    graph: Graph,
    stack: Stack,
    *,
    now_s: float,
    epoch_s: int | None,
    form: ImageForm = DEFAULT_FORM,
    members: dict[str, object] | None = None,
) -> BuiltImage:
    """Write configuration and manifest of a solved graph. The same inputs give the same bytes.

    With ``epoch_s`` they do so on every machine.

    ``members`` are added to the configuration as they are (inline cache records).
    Raises BlobNotFound, StorageError, KernelError.
    """
    depth = 0 if form.squash_base else base_depth(graph)
    config = image_config(graph, stack, now_s=now_s, epoch_s=epoch_s, form=form)
    if form.squash:
        from builder.squash import squashed

        stack = squashed(session, stack, depth, clamp_s=epoch_s)
        config = replace(config, diff_ids=tuple(layer.diff_id for layer in stack))
    layers = [
        _in_form(session, layer, form, new=place >= depth, portable=epoch_s is not None)
        for place, layer in enumerate(stack)
    ]
    config_blob = session.put(config.encode(members), form.config_type)
    manifest = Manifest.build(
        config_blob,
        layers,
        media_type=form.manifest_type,
        annotations=form.notes("manifest", graph.platform),
    )
    return BuiltImage(session.put(manifest.raw, manifest.media_type), config_blob, config)


def write_index(
    session: Session,
    images: Sequence[BuiltImage],
    *,
    epoch_s: int | None,
    form: ImageForm = DEFAULT_FORM,
    attestations: Sequence[Descriptor] = (),
) -> Descriptor:
    """One image a platform, under one name, and what is attested of them."""
    children = [
        replace(image.manifest, platform=image.config.platform).with_annotations({
            **form.notes("manifest-descriptor", image.config.platform),
            **form.notes("index-descriptor", image.config.platform),
        })
        for image in images
    ]  # fmt: skip
    created = {_CREATED: _rfc3339(epoch_s)} if epoch_s is not None and not form.docker else {}
    children += attestations
    index = Index.build(children, media_type=form.index_type, annotations={**created, **form.notes("index")})
    return session.put(index.raw, index.media_type)


def base_depth(graph: Graph) -> int:
    """How many layers are the base image's."""
    return len(graph.base.config.diff_ids) if graph.base else 0


def _in_form(session: Session, layer: BuiltLayer, form: ImageForm, *, new: bool, portable: bool) -> Descriptor:
    """A layer's descriptor in the image's format, its blob compressed anew where the form asks for it."""
    blob = layer.blob
    if media_types.is_foreign(blob.media_type):
        return blob
    compression = media_types.layer_compression(blob.media_type)
    wanted = form.compression if new or form.force else compression
    if form.docker and wanted == "zstd":
        wanted = "gzip"
    level = form.level if new or form.force else None
    if wanted != compression or level is not None or form.force:
        from store.recompress import recompressed

        blob = recompressed(session, blob, layer.diff_id, wanted, level, portable=portable)
    return Descriptor(form.layer_type(wanted), blob.digest, blob.size)


def image_config(
    graph: Graph, stack: Stack, *, now_s: float, epoch_s: int | None, form: ImageForm = DEFAULT_FORM
) -> ImageConfig:
    """The configuration: the base's history, then one entry an instruction.

    An entry without a layer has the time of the layer before it, so that a build served
    from the cache gives the image it gave before. In a squashed image the last entry that
    made a layer stands for all of them.
    """
    base_history = graph.base.config.history if graph.base else ()
    new = stack[base_depth(graph) :]
    entries = _history(graph, new, now_s=now_s, epoch_s=epoch_s)
    created = entries[-1].created if entries else (graph.base.config.created if graph.base else _rfc3339(now_s))
    if form.squash_base:
        base_history, entries = (), (*base_history, *entries)
    if form.squash:
        entries = _squashed(entries)
    return ImageConfig(
        platform=graph.platform,
        config=graph.config,
        diff_ids=tuple(layer.diff_id for layer in stack),
        history=() if form.omit_history else (*base_history, *entries),
        created=created,
        author=graph.author,
    )


def _history(graph: Graph, new: tuple[BuiltLayer, ...], *, now_s: float, epoch_s: int | None) -> tuple[History, ...]:
    times = [layer.created_s for layer in new]
    if not times and graph.base and graph.base.config.created:
        when = graph.base.config.created
    else:
        when = _rfc3339(times[0] if times else now_s)
    entries = []
    for planned in graph.history:
        if planned.step is not None:
            when = _rfc3339(times.pop(0))
        created = _rfc3339(epoch_s) if epoch_s is not None else when
        entries.append(History(created, planned.created_by, _COMMENT, empty_layer=planned.step is None))
    return tuple(entries)


def _squashed(entries: tuple[History, ...]) -> tuple[History, ...]:
    last = max((place for place, entry in enumerate(entries) if not entry.empty_layer), default=-1)
    return tuple(replace(entry, empty_layer=place != last) for place, entry in enumerate(entries))


def _rfc3339(seconds: float) -> str:
    when = datetime.fromtimestamp(seconds, UTC)
    text = when.isoformat(timespec="microseconds" if when.microsecond else "seconds")
    return text.replace("+00:00", "Z")
