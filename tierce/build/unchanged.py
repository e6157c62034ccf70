"""A build of which nothing changed, answered by one look.

An image follows from the Dockerfile, the files of the context, the base images and what
the user asked for. When all of these are as they were for an earlier build, and its image
is still there, that image is the answer, and no Dockerfile has to be read: reading and
planning are most of what a short build costs.

Files are the same when device, inode, size, mtime and ctime are; that is what the build
cache goes by for each file, too. Of secrets and agents only the names count, as in the keys
of steps. A question that these can't settle (contexts and files from elsewhere, other
outputs, no cache, warnings that must be shown again) is not asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from builder.checksum import fingerprint, settled
from builder.context import Context, ignore_candidates
from image.bare import dumps, loads
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import InvalidInput, NotFound
from image.paths import Path
from image.reference import Reference
from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from builder.graph import Graph
    from builder.progress import Event, Progress
    from store.store import Store
    from tierce.cli.build_flags import BuildFlags

_NAMES: Final = ("Dockerfile", "Containerfile", "dockerfile")
_MUST_BE_UNSET: Final = (
    "build_arg_file", "build_context", "ignorefile", "platform", "pull", "no_cache", "no_cache_filter", "cache_ttl", "cache_from",
    "cache_to", "output", "push", "annotation", "attest", "manifest", "verify_reproducible", "metadata_file", "graph", "check",
)  # fmt: skip
_SHOWS_STEPS: Final = frozenset({"auto", "plain", "tty", "quiet"})


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked for: ``key`` by its words, ``state`` by the files that it depends on."""

    key: str
    state: str
    settled: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What an earlier build came to. ``bases`` are the images it started from, by name."""

    image: Descriptor
    id: str
    steps: tuple[str, ...]
    bases: Mapping[str, str]


def ask(flags: BuildFlags, environ: Mapping[str, str], now_ns: int) -> Question | None:
    """The question that a command poses; None when it is not one for this module."""
    plain = flags.progress in _SHOWS_STEPS and flags.layers and flags.call in {"", "build"}
    plain = plain and flags.provenance in {"", "false"} and flags.sbom in {"", "false"}
    if not plain or any(getattr(flags, name) for name in _MUST_BE_UNSET):
        return None
    root = Path(flags.context)
    dockerfile = _dockerfile(root, flags.file)
    if flags.context == "-" or dockerfile is None or not root.is_dir():
        return None
    try:
        _look_at_loans(flags, environ)
        with Context.load(root, dockerfile).open() as tree:
            changes = tree.changes("")
    except (InvalidInput, NotFound, OSError):
        return None  # the usual way says what is wrong
    files = [_file_state(path) for path in (dockerfile, *ignore_candidates(root, dockerfile))]
    state = Digest.of(repr((files, fingerprint(changes))).encode()).encoded
    young = [("", *file) for file in files if file is not None]
    return Question(_key(flags, root, dockerfile, environ), state, settled([*changes, *young], now_ns))


def _look_at_loans(flags: BuildFlags, environ: Mapping[str, str]) -> None:
    """A secret or agent that is not there is missed, also when nothing needs it. Raises InvalidInput, NotFound."""
    if flags.secret or flags.ssh:
        from tierce.build.step_secrets import parse_agents, parse_secrets

        parse_secrets(flags.secret, environ)
        parse_agents(flags.ssh, environ)


def _dockerfile(root: Path, given: str | None) -> Path | None:
    if given == "-" or (given and "://" in given):
        return None
    candidates = [root / name for name in _NAMES] if given is None else [Path(given), root / given]
    return next((path for path in candidates if path.is_file()), None)


def _key(flags: BuildFlags, root: Path, dockerfile: Path, environ: Mapping[str, str]) -> str:
    """Everything of the command and its surroundings that decides over the image."""
    named = {word for word in flags.build_arg if "=" not in word} | {"SOURCE_DATE_EPOCH"}
    seen = sorted((k, v) for k, v in environ.items() if k in named or k.lower().endswith("_proxy"))
    words = (flags, os.path.realpath(root), os.path.realpath(dockerfile), seen, os.uname().machine)
    return Digest.of(repr(words).encode("utf-8", "surrogateescape")).encoded


def _file_state(path: Path) -> tuple[int, int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def look_up(store: Store, question: Question) -> Answer | None:
    """The answer of an earlier build, if it still holds."""
    remembered = store.metadata.built(question.key)
    if remembered is None or remembered[0] != question.state:
        return None
    fields = loads(remembered[1])
    image = Descriptor(fields["media_type"], Digest(fields["digest"]), fields["size"])
    answer = Answer(image, fields["id"], tuple(fields["steps"]), fields["bases"])
    names = {name: store.metadata.name(name) for name in answer.bases}
    same = all(found is not None and str(found.target.digest) == answer.bases[name] for name, found in names.items())
    return answer if same and store.metadata.has_image(image.digest) else None


def give_names(store: Store, answer: Answer, names: tuple[Reference, ...]) -> None:
    """Let the image have its names again, where they moved on."""
    moved = [
        name
        for name in names
        if (found := store.metadata.name(str(name))) is None or found.target.digest != answer.image.digest
    ]
    if moved:
        store.add_image(answer.image, moved)


def remember(store: Store, question: Question, graph: Graph, image: Descriptor, image_id: str) -> None:
    """Keep what a build came to, unless something of it may change without the question knowing."""
    from builder.graph import FromContext, FromGit, FromImage, FromScratch, FromUrl, inputs_first

    steps = list(inputs_first(graph.target))
    bases: dict[str, str] = {}
    for step in steps:
        match step.operation:
            case FromUrl() | FromGit():
                return
            case FromImage(image=base):
                found = store.metadata.name(str(base.reference))
                if found is None:
                    return
                bases[found.name] = str(found.target.digest)
    shown = [step.name for step in steps if not isinstance(step.operation, FromScratch | FromContext)]
    if question.settled and not any(step.fresh for step in steps):
        answer = {
            "media_type": image.media_type, "digest": str(image.digest), "size": image.size,
            "id": image_id, "steps": shown, "bases": bases,
        }  # fmt: skip
        store.metadata.set_built(question.key, question.state, dumps(answer))


class Watch:
    """Passes events on, and remembers whether there was a warning."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.warned = False

    def __call__(self, event: Event) -> None:
        self.warned = self.warned or type(event).__name__ == "Warned"
        self._progress(event)


def replay(answer: Answer, progress: Progress, clock: Callable[[], float]) -> None:
    """The events of a build that is wholly cached."""
    from builder.progress import StepCached

    for number, name in enumerate(answer.steps):
        progress(StepCached(str(number), name, clock()))
