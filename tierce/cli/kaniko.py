"""``tierce executor``: kaniko's command line, for jobs that were written for it.

It says which ``tierce build`` it means, and does that. ``tierce.kaniko`` translates.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from image.errors import StorageError
from image.value import replace
from tierce.cli.command import Settings
from tierce.cli.declare import command, option
from tierce.cli.output import echo
from tierce.kaniko import Job, parse_job

_VALUES: Final = (
    ("-c", "--context"), ("--context-sub-path",), ("-b", "--bucket"), ("-f", "--dockerfile"), ("--target",),
    ("--custom-platform", "--customPlatform"), ("--snapshot-mode", "--snapshotMode"), ("--git",),
    ("--tar-path", "--tarPath"), ("--oci-layout-path",), ("--digest-file",), ("--image-name-with-digest-file",),
    ("--image-name-tag-with-digest-file",), ("--compression",), ("--compression-level",), ("--cache-repo",),
    ("--cache-dir",), ("--cache-ttl",), ("--kaniko-dir",), ("--push-retry",), ("--image-fs-extract-retry",),
    ("--image-download-retry",), ("-v", "--verbosity"), ("--log-format",),
)  # fmt: skip
_LISTS: Final = (
    ("-d", "--destination"), ("--build-arg",), ("--label",), ("--ignore-path",), ("--insecure-registry",),
    ("--skip-tls-verify-registry",), ("--registry-certificate",), ("--registry-client-cert",), ("--registry-map",),
    ("--registry-mirror",),
)  # fmt: skip
_SWITCHES: Final = (
    "cache", "cache-copy-layers", "cache-run-layers", "cleanup", "compressed-caching", "force", "force-build-metadata",
    "ignore-var-run", "insecure", "insecure-pull", "log-timestamp", "no-push", "no-push-cache",
    "push-ignore-immutable-tag-errors", "reproducible", "single-snapshot", "skip-default-registry-fallback",
    "skip-push-permission-check", "skip-tls-verify", "skip-tls-verify-pull", "skip-unused-stages", "use-new-run",
    "whitelist-var-run",
)  # fmt: skip


def _options(function: Any) -> Any:
    for name in _SWITCHES:
        function = option(f"--{name}/--no-{name}", f"switch_{name}".replace("-", "_"), default=None)(function)
    for names in _LISTS:
        function = option(*names, multiple=True)(function)
    for names in _VALUES:
        function = option(*names)(function)
    return function


@command(
    "executor",
    short_help="Build as kaniko's executor does, with its flags",
    examples="""
tierce executor --context . --destination registry.example.com/app:1
tierce executor --context git://host/app.git#refs/heads/main --no-push --tar-path app.tar
""",
)
@_options
def executor(settings: Settings, /, **values: Any) -> None:
    """Build an image with the flags of kaniko's executor: what they mean here is printed, then done."""
    given = {name.removeprefix("switch_"): value for name, value in values.items() if value not in (None, ())}
    job = parse_job(given, settings.environ)
    echo(f"tierce build {job.shown}", err=True)
    with _metadata_file() as metadata, _registries_conf(settings, job) as configured:
        _read_context(job)
        _build(configured, (*job.argv, "--metadata-file", str(metadata), job.context))
        digest = json.loads(metadata.read_text()).get("containerimage.digest", "")
    for path, text in job.digest_files(digest):
        _write(path, text)


def _build(settings: Settings, argv: tuple[str, ...]) -> None:
    from tierce.cli.build import build
    from tierce.cli.clicked import call

    call(build, settings, argv)


@contextmanager
def _metadata_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tierce-executor-") as directory:
        yield Path(directory) / "metadata.json"


@contextmanager
def _registries_conf(settings: Settings, job: Job) -> Iterator[Settings]:
    """The settings with the job's mirrors and careless registries, which stand for the user's registries.conf."""
    environ = {**settings.environ, **job.environ}
    if not job.registries_conf:
        yield replace(settings, environ=environ)
        return
    with tempfile.TemporaryDirectory(prefix="tierce-executor-") as directory:
        path = Path(directory) / "registries.conf"
        path.write_text(job.registries_conf)
        yield replace(settings, environ={**environ, "CONTAINERS_REGISTRIES_CONF": str(path)})


def _read_context(job: Job) -> None:
    """Let an archive of the disk be standard input. Raises StorageError."""
    if job.archive is None:
        return
    try:
        fd = os.open(job.archive, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"read context {job.archive}: {(error.strerror or '').lower()}") from error
    os.dup2(fd, 0)
    os.close(fd)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise StorageError(f"write {path}: {(error.strerror or '').lower()}") from error
