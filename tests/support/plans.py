"""Plans of small Dockerfiles over images that exist in name only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse
from builder.dockerfile.stages import split_stages
from builder.graph import BaseImage, Graph, RunCommand, Step, inputs_first
from builder.plan import Planned, Source, plan
from builder.stage_plan import PlanOptions
from image import media_types
from image.config import ContainerConfig, Healthcheck, ImageConfig
from image.descriptor import Descriptor
from image.errors import ReferenceNotFound
from image.platform import Platform
from image.reference import Reference

HERE = Platform("linux", "amd64")
OPTIONS = PlanOptions(platform=HERE, build_platform=HERE)
BASES: Mapping[str, ContainerConfig] = {
    "base": ContainerConfig(env=("PATH=/bin", "FROM_BASE=1"), cmd=("sh",), working_dir="/home", user="app"),
    "bare": ContainerConfig(),
    "trigger": ContainerConfig(on_build=("COPY . /src", "RUN make")),
    "copies": ContainerConfig(on_build=("COPY --from=assets /a /a", "COPY --from=base /b /b")),
    "asks": ContainerConfig(on_build=("ARG ASKED",)),
    "healthy": ContainerConfig(healthcheck=Healthcheck(("CMD", "ask"), 5)),
}


def resolve(reference: Reference, platform: Platform) -> BaseImage:
    if reference.familiar_repository not in BASES:
        raise ReferenceNotFound(f"image {reference.familiar} not found")
    config = ImageConfig(platform, BASES[reference.familiar_repository])
    manifest = Descriptor.of(str(reference).encode(), media_types.OCI_MANIFEST)
    return BaseImage(reference, manifest, config, ())


def source_of(text: str) -> Source:
    document = parse(text.encode(), "Dockerfile")
    return Source(split_stages(instructions(document)), document.escape)


def planned(text: str, options: PlanOptions = OPTIONS) -> Planned:
    return plan(source_of(text), options, resolve)


def graph_of(text: str, options: PlanOptions = OPTIONS) -> Graph:
    return planned(text, options).graph


def with_args(**build_args: str) -> PlanOptions:
    return replace(OPTIONS, build_args=build_args)


def steps(graph: Graph, kind: type) -> list[Step]:
    return [step for step in inputs_first(graph.target) if isinstance(step.operation, kind)]


def run_env(graph: Graph) -> dict[str, str]:
    """The environment of the last RUN."""
    operation = steps(graph, RunCommand)[-1].operation
    assert isinstance(operation, RunCommand)
    return dict(item.split("=", 1) for item in operation.env)


def created_by(graph: Graph) -> list[str]:
    return [entry.created_by for entry in graph.history]


def noticed(text: str, options: PlanOptions = OPTIONS) -> list[str]:
    return [str(found.warning) for found in planned(text, options).noticed]
