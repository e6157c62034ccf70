"""kaniko's command line in the words of ``tierce build``. Pure, but for a look at the environment.

Source: kaniko's ``cmd/executor/cmd/root.go`` and ``pkg/buildcontext``. docs/kaniko.md has the table.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from image.errors import InvalidInput
from image.reference import Reference
from image.value import dataclass, field

_REFUSED: Final[Mapping[str, str]] = {
    "bucket": "fetch the archive and pipe it: gsutil cat gs://BUCKET/context.tar.gz | tierce executor --context tar://stdin",
    "ignore_path": "a layer is what a step changed: keep a path out of it with RUN --mount=type=cache,target=PATH or type=tmpfs",
    "registry_certificate": "put the certificate at /etc/containers/certs.d/HOST/ca.crt",
    "registry_client_cert": "put the pair at /etc/containers/certs.d/HOST/client.cert and client.key",
}
_CONTEXTS: Final = {
    "s3": "aws s3 cp s3://… -", "gs": "gsutil cat gs://…", "azure": "az storage blob download",
}  # fmt: skip
"""How to get an archive out of a store of objects."""
_SNAPSHOTS: Final = ("full", "redo", "time")
_QUIET: Final = ("warn", "warning", "error", "fatal", "panic")
_LEVELS: Final = ("trace", "debug", "info", *_QUIET)


@dataclass(frozen=True, slots=True)
class Job:
    """What ``tierce build`` is called with: ``argv``, then ``context``. ``archive`` is to be its standard input."""

    argv: tuple[str, ...]
    context: str
    archive: Path | None = None
    registries_conf: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    destinations: tuple[Reference, ...] = ()
    written: tuple[tuple[str, Path], ...] = ()
    """Which files want the digest: ``digest``, ``name`` or ``tag``."""

    @property
    def shown(self) -> str:
        """The command as a user would type it."""
        source = f"- < {shlex.quote(str(self.archive))}" if self.archive else shlex.quote(self.context)
        return f"{shlex.join(self.argv)} {source}"

    def digest_files(self, digest: str) -> Iterator[tuple[Path, str]]:
        """Each file that was asked for, and what is in it."""
        for kind, path in self.written:
            if kind == "digest":
                yield path, digest
                continue
            tags = [f":{one.tag}" if kind == "tag" else "" for one in self.destinations]
            names = zip(self.destinations, tags, strict=True)
            yield path, "".join(f"{one.domain}/{one.path}{tag}@{digest}\n" for one, tag in names)


def parse_job(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Job:
    """kaniko's flags by name, those that were given. Raises InvalidInput for what can't be had."""
    flags = {**_of_environment(environ), **flags}
    for name, advice in _REFUSED.items():
        if flags.get(name):
            raise InvalidInput(f"--{name.replace('_', '-')} is not supported: {advice}")
    _check_words(flags)
    destinations = tuple(Reference.parse(name).with_default_tag() for name in flags.get("destination", ()))
    if not destinations and not flags.get("no_push"):
        raise InvalidInput("you must provide --destination, or use --no-push")
    files = (
        ("digest_file", "digest"),
        ("image_name_with_digest_file", "name"),
        ("image_name_tag_with_digest_file", "tag"),
    )
    written = tuple((kind, Path(flags[name])) for name, kind in files if name in flags)
    context, archive = _context(flags, environ)
    argv = (
        *_inputs(flags), *_outputs(flags, destinations), *_cache(flags, destinations), *_how(flags),
        *_git_secrets(context, environ),
    )  # fmt: skip
    conf = _registries_conf(flags, destinations)
    return Job(argv, context, archive, conf, _credentials(environ), destinations, written)


def _of_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "KANIKO_REGISTRY_MIRROR" in environ:
        found["registry_mirror"] = (environ["KANIKO_REGISTRY_MIRROR"],)
    if "KANIKO_REGISTRY_MAP" in environ:
        found["registry_map"] = (environ["KANIKO_REGISTRY_MAP"],)
    if environ.get("KANIKO_NO_PUSH", "").lower() in {"1", "t", "true"}:
        found["no_push"] = True
    return found


def _check_words(flags: Mapping[str, Any]) -> None:
    if (mode := flags.get("snapshot_mode", "full")) not in _SNAPSHOTS:
        raise InvalidInput(f"invalid --snapshot-mode {mode!r}: there are {', '.join(_SNAPSHOTS)}")
    if (level := flags.get("verbosity", "info")) not in _LEVELS:
        raise InvalidInput(f"invalid --verbosity {level!r}: there are {', '.join(_LEVELS)}")
    if flags.get("cache_run_layers") is False and flags.get("cache"):
        raise InvalidInput("--cache-run-layers=false is not supported: build without --cache")


def _inputs(flags: Mapping[str, Any]) -> Iterator[str]:
    if "dockerfile" in flags:
        yield from ("--file", flags["dockerfile"])
    for name in ("build_arg", "label"):
        for word in flags.get(name, ()):
            yield from (f"--{name.replace('_', '-')}", word)
    if "target" in flags:
        yield from ("--target", flags["target"])
    if "custom_platform" in flags:
        yield from ("--platform", flags["custom_platform"])


def _outputs(flags: Mapping[str, Any], destinations: tuple[Reference, ...]) -> Iterator[str]:
    for one in destinations:
        yield from ("--tag", str(one))
    form = "".join(
        f",{name}={flags[key]}"
        for key, name in (("compression", "compression"), ("compression_level", "compression-level"))
        if str(flags.get(key, "-1")) != "-1"
    )
    yield from ("--output", f"type=image{form}" + ("" if flags.get("no_push") else ",push=true"))
    if "tar_path" in flags:
        yield from ("--output", f"type=docker,dest={flags['tar_path']}")
    if "oci_layout_path" in flags:
        yield from ("--output", f"type=oci,tar=false,dest={flags['oci_layout_path']}{form}")
    if flags.get("single_snapshot"):
        yield "--squash"
    if flags.get("reproducible"):
        yield from ("--timestamp", "0")


def _cache(flags: Mapping[str, Any], destinations: tuple[Reference, ...]) -> Iterator[str]:
    if not flags.get("cache"):
        return
    repository = flags.get("cache_repo", "")
    if not repository and (flags.get("no_push") or not destinations):
        raise InvalidInput("if using cache with --no-push, specify cache repo with --cache-repo")
    if repository.startswith("oci:"):
        path = repository.removeprefix("oci:")
        source, target = f"type=local,src={path}", f"type=local,dest={path},mode=max"
    else:
        ref = repository or f"{destinations[0].domain}/{destinations[0].path}/cache"
        source, target = f"type=registry,ref={ref}", f"type=registry,ref={ref},mode=max"
    yield from ("--cache-from", source)
    if not flags.get("no_push_cache"):
        yield from ("--cache-to", target)
    if "cache_ttl" in flags:
        yield from ("--cache-ttl", flags["cache_ttl"])


def _how(flags: Mapping[str, Any]) -> Iterator[str]:
    if flags.get("insecure_pull") or flags.get("skip_tls_verify_pull"):
        yield "--tls-verify=false"
    if "push_retry" in flags:
        yield from ("--retry", flags["push_retry"])
    if flags.get("log_format") == "json":
        yield from ("--progress", "rawjson")
    elif flags.get("verbosity") in _QUIET:
        yield from ("--progress", "none")
    else:
        yield from ("--progress", "plain")


def _context(flags: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, Path | None]:
    """What ``tierce build`` gets as its context, and the archive that is to be its standard input."""
    given, below = flags.get("context", "/workspace/"), flags.get("context_sub_path", "")
    kind, separator, rest = given.partition("://")
    if not separator or kind == "dir":
        directory = rest if separator else given
        return (str(Path(directory) / below) if below else directory), None
    if kind == "git":
        return _git(rest, below, flags.get("git", ""), environ.get("GIT_PULL_METHOD", "https")), None
    if below:
        raise InvalidInput(f"--context-sub-path of {kind}:// is not supported: make an archive of that directory alone")
    if kind == "tar":
        return "-", None if rest == "stdin" else Path(rest)
    if kind == "https" and ".blob.core.windows.net/" in rest:
        kind = "azure"
    if kind in _CONTEXTS:
        raise InvalidInput(
            f"context {given}: no store of objects is read: {_CONTEXTS[kind]} | tierce executor --context tar://stdin"
        )
    return given, None


def _git(rest: str, below: str, options: str, method: str) -> str:
    """``HOST/REPOSITORY[#REF[#COMMIT]]`` with ``--git branch=…`` as docker writes it."""
    repository, _, references = rest.partition("#")
    fields = dict(word.partition("=")[::2] for word in options.split(",") if word)
    if fields.get("insecure-skip-tls", "false") == "true":
        raise InvalidInput(
            "--git insecure-skip-tls=true is not supported: set SSL_CERT_FILE to the server's authorities"
        )
    reference = references.rpartition("#")[2] or fields.get("branch", "")
    url = f"{method}://{repository}" + ("" if repository.endswith(".git") else ".git")
    wanted = reference.removeprefix("refs/heads/").removeprefix("refs/tags/")
    fragment = f"{wanted}:{below}" if below else wanted
    return f"{url}#{fragment}" if fragment else url


def _git_secrets(context: str, environ: Mapping[str, str]) -> Iterator[str]:
    """kaniko's variable for a repository's token, lent as a secret: its value is in no argument."""
    if environ.get("GIT_TOKEN") and "://" in context:
        yield from ("--secret", "id=GIT_AUTH_TOKEN,env=GIT_TOKEN")


def _credentials(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Where jobs for kaniko mount docker's config.json."""
    place = Path("/kaniko/.docker")
    if "DOCKER_CONFIG" in environ or not (place / "config.json").is_file():
        return {}
    return {"DOCKER_CONFIG": str(place)}


def _registries_conf(flags: Mapping[str, Any], destinations: tuple[Reference, ...]) -> str:
    """Mirrors and careless registries as a registries.conf; "" where nothing was said of them."""
    careless = {*flags.get("insecure_registry", ()), *flags.get("skip_tls_verify_registry", ())}
    if flags.get("insecure") or flags.get("skip_tls_verify"):
        careless |= {one.domain for one in destinations}
        cache = flags.get("cache_repo", "oci:")
        careless |= set() if cache.startswith("oci:") else {Reference.parse(cache).domain}
    mirrors: dict[str, list[str]] = {}
    for pair in (pair for word in flags.get("registry_map", ()) for pair in word.split(";") if pair):
        source, equals, target = pair.partition("=")
        if not (source and equals and target):
            raise InvalidInput(f"invalid --registry-map {pair!r}: want REGISTRY=MIRROR")
        mirrors.setdefault("docker.io" if source == "index.docker.io" else source, []).append(target)
    if flags.get("registry_mirror"):
        mirrors.setdefault("docker.io", []).extend(flags["registry_mirror"])
    only = bool(flags.get("skip_default_registry_fallback"))
    names = dict.fromkeys([*mirrors, *sorted(careless)])
    return "\n".join(_rule(name, mirrors.get(name, []), careless, blocked=only and name in mirrors) for name in names)


def _rule(name: str, mirrors: list[str], careless: set[str], *, blocked: bool) -> str:
    lines = ["[[registry]]", f"prefix = {json.dumps(name)}", f"location = {json.dumps(name)}"]
    lines += ["insecure = true"] if name in careless else []
    lines += ["blocked = true"] if blocked else []
    for mirror in mirrors:
        lines += ["[[registry.mirror]]", f"location = {json.dumps(mirror)}"]
        lines += ["insecure = true"] if mirror.partition("/")[0] in careless else []
    return "\n".join(lines) + "\n"
