"""The solved graph to an image: configuration, history, manifest.

Spec: dockerfile.md 6 (SOURCE_DATE_EPOCH), 7 (configuration and history).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from builder.graph import Graph
from builder.results import BuiltLayer, Stack
from image import media_types
from image.config import History, ImageConfig
from image.descriptor import Descriptor
from image.manifest import Manifest
from store.store import Session

_COMMENT = "buildkit.dockerfile.v0"
"""What docker's BuildKit writes as ``comment``; tools read how to show an entry from it."""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image whose blobs are all in the store. ``id`` is its config, as docker counts ids."""

    manifest: Descriptor
    id: Descriptor
    config: ImageConfig


def write_image(session: Session, graph: Graph, stack: Stack, *, now_s: float, epoch_s: int | None) -> BuiltImage:
    """Write configuration and manifest of a solved graph. The same inputs give the same bytes."""
    config = image_config(graph, stack, now_s=now_s, epoch_s=epoch_s)
    config_blob = session.put(config.encode(), media_types.OCI_CONFIG)
    manifest = Manifest.build(config_blob, [layer.blob for layer in stack])
    return BuiltImage(session.put(manifest.raw, manifest.media_type), config_blob, config)


def image_config(graph: Graph, stack: Stack, *, now_s: float, epoch_s: int | None) -> ImageConfig:
    """The configuration: the base's history, then one entry an instruction.

    An entry without a layer has the time of the layer before it, so that a build served
    from the cache gives the image it gave before.
    """
    base_history = graph.base.config.history if graph.base else ()
    base_depth = len(graph.base.config.diff_ids) if graph.base else 0
    new = stack[base_depth:]
    entries = _history(graph, new, now_s=now_s, epoch_s=epoch_s)
    created = entries[-1].created if entries else (graph.base.config.created if graph.base else _rfc3339(now_s))
    return ImageConfig(
        platform=graph.platform,
        config=graph.config,
        diff_ids=tuple(layer.diff_id for layer in stack),
        history=(*base_history, *entries),
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


def _rfc3339(seconds: float) -> str:
    when = datetime.fromtimestamp(seconds, UTC)
    text = when.isoformat(timespec="microseconds" if when.microsecond else "seconds")
    return text.replace("+00:00", "Z")
