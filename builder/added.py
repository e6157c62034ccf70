"""What ADD reads: files of the context, downloads and git repositories, each a source step.

Spec: dockerfile.md 1.5, rows "ADD URL", "ADD git" and "--checksum".
"""

from __future__ import annotations

from collections.abc import Callable

from builder.dockerfile.instructions import Add, Copy
from builder.dockerfile.remotes import GitSource, UrlSource, checked_commit, parse_remote, shown
from builder.graph import FromGit, FromUrl, Step
from image.digest import Digest
from image.errors import DockerfileError, InvalidDigest, InvalidInput
from image.span import Span
from image.value import dataclass, replace


@dataclass(frozen=True, slots=True)
class Added:
    """ADD's sources as paths of input steps; ``inputs`` tells for each path which of ``others`` has it."""

    sources: tuple[str, ...]
    inputs: tuple[int, ...]
    others: tuple[Step, ...]


def plan_added(add: Add, context: Callable[[Span], Step]) -> Added:
    """The input steps of an expanded ADD. Raises DockerfileError."""
    try:
        remotes = [parse_remote(word) for word in add.sources]
        _check_flags(add, remotes)
        read = [
            (word, context(add.span)) if remote is None else _remote_input(add, remote)
            for word, remote in zip(add.sources, remotes, strict=True)
        ]
    except InvalidInput as error:
        raise DockerfileError(str(error), span=add.span) from error
    if not read:
        return Added((), (), (context(add.span),))
    others = {step.id: step for _, step in read}
    positions = list(others)
    inputs = tuple(positions.index(step.id) for _, step in read)
    return Added(tuple(path for path, _ in read), inputs if any(inputs) else (), tuple(others.values()))


def refuse_remote(copy: Copy) -> None:
    """COPY takes files only. Raises DockerfileError."""
    for word in copy.sources:
        try:
            remote = parse_remote(word)
        except InvalidInput:
            continue
        if remote is not None:
            raise DockerfileError(f"source can't be a URL for COPY: {shown(word)}", span=copy.span, hint="use ADD")


def _check_flags(add: Add, remotes: list[UrlSource | GitSource | None]) -> None:
    if add.checksum:
        if len(remotes) + len(add.inline) != 1:
            raise InvalidInput("checksum can't be specified for multiple sources")
        if remotes[0] is None:
            raise InvalidInput("checksum requires an HTTP(S) or git source")
    if add.keep_git_dir is not None and not any(isinstance(remote, GitSource) for remote in remotes):
        raise InvalidInput("keep-git-dir requires a git source")


def _remote_input(add: Add, remote: UrlSource | GitSource) -> tuple[str, Step]:
    """The path to copy, and the step that has it."""
    if isinstance(remote, UrlSource):
        operation = FromUrl(remote, _digest(add.checksum))
        return remote.name, Step.make(operation, name=f"[internal] download {shown(remote.url)}", span=add.span)
    source = _with_flags(add, remote)
    step = Step.make(FromGit(source), name=f"[internal] fetch {shown(source.remote)}", span=add.span)
    return f"/{source.subdir}", step


def _digest(checksum: str) -> Digest | None:
    if not checksum:
        return None
    try:
        digest = Digest(checksum)
    except InvalidDigest as error:
        raise InvalidInput(f"invalid checksum: {error}") from error
    if digest.algorithm != "sha256":
        raise InvalidInput(f"invalid checksum {checksum!r}: want sha256:…")
    return digest


def _with_flags(add: Add, source: GitSource) -> GitSource:
    """The flags and the URL's query say the same, or only one of them speaks."""
    if add.keep_git_dir is False and source.keep_git_dir:
        raise InvalidInput("keep-git-dir conflict: the flag says false, the URL true")
    checksum = checked_commit(add.checksum)
    if checksum and source.checksum and checksum != source.checksum:
        raise InvalidInput(f"checksum conflict: the flag says {checksum}, the URL {source.checksum}")
    return replace(
        source,
        checksum=checksum or source.checksum,
        keep_git_dir=source.keep_git_dir or bool(add.keep_git_dir),
    )
