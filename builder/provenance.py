"""How an image was made, as SLSA provenance in the form that BuildKit writes. Pure.

Tools that read BuildKit's attestations (``buildx imagetools inspect``, scanners, policy engines)
read these: the build type and the members are BuildKit's. Instead of its own graph of
operations, ``buildConfig`` has our steps. The values of secrets and of proxies are in none.

Spec: BuildKit docs/attestations/slsa-definitions.md ("SLSA v1"); slsa.dev/spec/v1.1/provenance.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from builder.dockerfile.mounts import SecretMount, SshMount
from builder.dockerfile.remotes import shown
from builder.graph import (
    CopyFiles,
    FromContext,
    FromGit,
    FromImage,
    FromScratch,
    FromUrl,
    Graph,
    MakeDirectory,
    Operation,
    RunCommand,
    Step,
    inputs_first,
)  # fmt: skip
from builder.origin import Origin
from builder.output_words import parse_fields
from builder.results import Checkout, Download, Result, Rootfs
from builder.stage_plan import PROXY_ARGS, PlanOptions
from image.errors import InvalidInput
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass

PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
_BUILD_TYPE: Final = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
_NO_SBOM: Final = "an SBOM is not made here: run a scanner, such as syft, on the image"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the user wants to be told. ``every_detail`` is mode=max: arguments, secrets' names, steps, the Dockerfile."""

    every_detail: bool = False
    builder_id: str = ""
    reproducible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A finished build. ``results`` gives what a step came to, if it had to be looked at.

    Times are None where the document has to be the same each time; so is ``invocation`` "".
    """

    graph: Graph
    options: PlanOptions
    dockerfile: bytes
    path: str
    results: Callable[[Step], Result | None]
    origin: Origin | None = None
    started_s: float | None = None
    finished_s: float | None = None
    invocation: str = ""


def parse_attestations(attest: tuple[str, ...], provenance: str, sbom: str) -> Provenance | None:
    """``--attest``, ``--provenance`` and ``--sbom``; None for no attestation. Raises InvalidInput."""
    wanted: Provenance | None = None
    for word in attest:
        fields = parse_fields(word, "attestation")
        kind = fields.pop("type", "")
        if kind not in {"provenance", "sbom"}:
            raise InvalidInput(f"invalid attestation {word!r}: there are type=provenance and type=sbom")
        if fields.pop("disabled", "false") == "true":
            continue
        if kind == "sbom":
            raise InvalidInput(f"attestation {word!r} is not supported: {_NO_SBOM}")
        wanted = _provenance(word, fields)
    if sbom and sbom.lower() != "false":
        raise InvalidInput(f"--sbom={sbom} is not supported: {_NO_SBOM}")
    match provenance.lower():
        case "":
            return wanted
        case "false":
            return None
        case "true":
            return Provenance()
        case _ if "=" not in provenance:
            raise InvalidInput(f"invalid --provenance {provenance!r}: want true, false or mode=min|max")
        case _:
            return _provenance(provenance, parse_fields(provenance, "provenance"))


def _provenance(word: str, fields: dict[str, str]) -> Provenance | None:
    if fields.pop("disabled", "false") == "true":
        return None
    if (mode := fields.pop("mode", "min")) not in {"min", "max"}:
        raise InvalidInput(f"invalid provenance {word!r}: mode={mode}: want min or max")
    if (version := fields.pop("version", "v1")) != "v1":
        raise InvalidInput(f"invalid provenance {word!r}: version={version}: there is v1")
    fields.pop("inline-only", None)
    builder_id, reproducible = fields.pop("builder-id", ""), fields.pop("reproducible", "false") == "true"
    if fields:
        raise InvalidInput(f"invalid provenance {word!r}: unknown attribute {sorted(fields)[0]!r}")
    return Provenance(mode == "max", builder_id, reproducible)


def predicate(wanted: Provenance, facts: Facts) -> dict[str, object]:
    """The document's own part; the statement around it names the image."""
    steps = [step for step in inputs_first(facts.graph.target) if not isinstance(step.operation, FromScratch)]
    config: dict[str, object] = {"path": facts.path}
    if facts.origin is not None:
        config = {"uri": facts.origin.uri, "digest": dict(facts.origin.digest), **config}
    internal: dict[str, object] = {"builderPlatform": str(facts.options.build_platform)}
    if wanted.every_detail:
        internal["buildConfig"] = {"steps": list(_steps(steps))}
    return {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": {"configSource": config, "request": _request(wanted, facts, steps)},
            "internalParameters": internal,
            "resolvedDependencies": list(_dependencies(facts, steps)),
        },
        "runDetails": {"builder": {"id": wanted.builder_id}, "metadata": _metadata(wanted, facts, steps)},
    }


def package_url(reference: Reference, platform: Platform) -> str:
    """An image in the words of Package URL: ``pkg:docker/alpine@3.17?platform=linux%2Famd64``."""
    version = reference.tag or (str(reference.digest) if reference.digest else "latest")
    return f"pkg:docker/{reference.familiar_repository}@{version}?platform={quote(str(platform), safe='')}"


def _request(wanted: Provenance, facts: Facts, steps: list[Step]) -> dict[str, object]:
    local = any(isinstance(step.operation, FromContext) for step in steps) and facts.origin is None
    request: dict[str, object] = {
        "frontend": "dockerfile.v0",
        "locals": [{"name": name} for name in (("context",) if local else ())] + (
            [{"name": "dockerfile"}] if facts.origin is None else []
        ),
    }  # fmt: skip
    args: dict[str, str] = {"target": facts.options.target} if facts.options.target else {}
    if wanted.every_detail:
        given = facts.options.build_args.items()
        args |= {f"build-arg:{name}": value for name, value in given if name not in PROXY_ARGS}
        args |= {f"label:{name}": value for name, value in facts.options.labels.items()}
        request["secrets"], request["ssh"] = _loans(steps)
    return {**request, "args": args} if args else request


def _loans(steps: list[Step]) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Secrets and agents that steps ask for, by name."""
    secrets: dict[str, bool] = {}
    agents: dict[str, bool] = {}
    for operation in (step.operation for step in steps):
        for mount in (one.mount for one in operation.mounts) if isinstance(operation, RunCommand) else ():
            match mount:
                case SecretMount():
                    secrets[mount.id] = secrets.get(mount.id, False) or mount.required
                case SshMount():
                    agents[mount.id] = agents.get(mount.id, False) or mount.required
                case _:
                    pass
    return _optional(secrets), _optional(agents)


def _optional(required: Mapping[str, bool]) -> list[dict[str, object]]:
    return [{"id": name, **({} if must else {"optional": True})} for name, must in sorted(required.items())]


def _dependencies(facts: Facts, steps: list[Step]) -> Iterator[dict[str, object]]:
    if facts.origin is not None:
        yield {"uri": facts.origin.uri, "digest": dict(facts.origin.digest)}
    for step in steps:
        found = facts.results(step)
        match step.operation:
            case FromImage(image=image):
                uri = package_url(image.reference, image.config.platform)
                yield {"uri": uri, "digest": {"sha256": image.manifest.digest.encoded}}
            case FromUrl(source=source) if isinstance(found, Download):
                yield {"uri": shown(source.url), "digest": {"sha256": found.file.blob.digest.encoded}}
            case FromGit(source=source) if isinstance(found, Checkout):
                ref = f"#{source.ref}" if source.ref else ""
                yield {"uri": f"{shown(source.remote)}{ref}", "digest": {"sha1": found.commit}}
            case _:
                pass


def _metadata(wanted: Provenance, facts: Facts, steps: list[Step]) -> dict[str, object]:
    runs = [step.operation for step in steps if isinstance(step.operation, RunCommand)]
    local = facts.origin is None and any(isinstance(step.operation, FromContext) for step in steps)
    hermetic = all(run.network == "none" for run in runs)
    extra: dict[str, object] = {}
    if wanted.every_detail:
        extra = {"source": _source(facts, steps), "layers": _layers(facts, steps)}
    times = (("startedOn", facts.started_s), ("finishedOn", facts.finished_s))
    return {
        **({"invocationID": facts.invocation} if facts.invocation else {}),
        **{name: _rfc3339(when) for name, when in times if when is not None},
        "buildkit_metadata": extra,
        "buildkit_hermetic": hermetic,
        "buildkit_completeness": {"request": wanted.every_detail, "resolvedDependencies": hermetic and not local},
        "buildkit_reproducible": wanted.reproducible,
    }


def _source(facts: Facts, steps: list[Step]) -> dict[str, object]:
    """The Dockerfile, and which of its lines each step is."""
    locations = {
        f"step{number}": {"locations": [{"ranges": [{"start": {"line": step.span.start}, "end": {"line": step.span.end}}]}]}
        for number, step in enumerate(steps)
        if step.span is not None
    }  # fmt: skip
    data = base64.b64encode(facts.dockerfile).decode()
    return {"locations": locations, "infos": [{"filename": facts.path, "language": "Dockerfile", "data": data}]}


def _layers(facts: Facts, steps: list[Step]) -> dict[str, object]:
    """The layers that a step's files were at its end."""
    found: dict[str, object] = {}
    for number, step in enumerate(steps):
        result = facts.results(step)
        if isinstance(result, Rootfs):
            found[f"step{number}:0"] = [[layer.blob.to_json() for layer in result.stack.result()]]
    return found


def _steps(steps: list[Step]) -> Iterator[dict[str, object]]:
    numbers = {step.id: number for number, step in enumerate(steps)}
    for number, step in enumerate(steps):
        inputs = [f"step{numbers[needed.id]}:0" for needed in step.inputs if needed.id in numbers]
        yield {"id": f"step{number}", "name": step.name, "op": _operation(step.operation), "inputs": inputs}


def _operation(operation: Operation) -> dict[str, object]:
    match operation:
        case RunCommand():
            meta = {
                "args": list(operation.args),
                "env": list(operation.env),
                "cwd": operation.cwd,
                "user": operation.user,
            }
            return {"exec": {"meta": meta, "network": operation.network, "security": operation.security}}
        case CopyFiles():
            return {"copy": {"sources": list(operation.sources), "dest": operation.dest}}
        case MakeDirectory():
            return {"mkdir": {"path": operation.path}}
        case FromImage(image=image):
            return {"source": {"identifier": f"docker-image://{image.reference}"}}
        case FromContext():
            return {"source": {"identifier": f"local://{operation.name or 'context'}"}}
        case FromUrl():
            return {"source": {"identifier": shown(operation.source.url)}}
        case FromGit():
            return {"source": {"identifier": f"git://{shown(operation.source.remote)}"}}
        case FromScratch():
            return {}


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
