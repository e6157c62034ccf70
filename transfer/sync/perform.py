"""A sync as it happens: list, look, copy, delete, several images at a time.

Of each image both sides are looked at, which is one HEAD each; it is copied when they differ,
by the digest that was seen, so that a tag which moves meanwhile gives one whole image or the
other. Nothing is deleted at a target of whose source something failed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from time import monotonic
from typing import Final, TypeVar

from image.digest import Digest
from image.errors import Cancelled, ReferenceNotFound, TierceError
from image.value import dataclass, replace
from transfer.digest_tags import digest_of
from transfer.sync.ends import Ends, Seen
from transfer.sync.plan import Pair, Removal, Step, backup_address, decide, pair_of, removals
from transfer.sync.report import Outcome, Report
from transfer.sync.rules import Rule
from transfer.transports.address import parse_transport

_T = TypeVar("_T")
_R = TypeVar("_R")
_TAGGED: Final = frozenset({"docker", "oci"})
"""Transports whose addresses end with a tag, so that a companion tag has a place beside an image's."""


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """``delete`` removes tags that the source lacks; ``missing_only`` copies only what the target lacks."""

    dry_run: bool = False
    delete: bool = False
    missing_only: bool = False
    keep_going: bool = True
    parallel: int = 4


@dataclass(frozen=True, slots=True)
class _Listed:
    """A repository's rule with its images, and the companions that the source has, by the digest they belong to."""

    rule: Rule
    tags: tuple[str, ...]
    companions: dict[str, tuple[str, ...]]


class Sync:
    """``name_backup`` expands a rule's backup template; ``tell`` gets each outcome, one at a time."""

    def __init__(
        self,
        ends: Ends,
        options: SyncOptions,
        *,
        name_backup: Callable[[Pair], str],
        tell: Callable[[Outcome], None],
        note: Callable[[str], None],
    ) -> None:
        self._ends = ends
        self._options = options
        self._name_backup = name_backup
        self._tell = tell
        self._note = note
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []
        self._pulls_left: dict[str, int] = {}
        self._exact = True
        self._asked: dict[tuple[str, str, Digest], bool] = {}

    def run(self, rules: Iterable[Rule]) -> Report:
        """Do it all. What fails is an outcome; raises only Cancelled and what ends the program."""
        begun = monotonic()
        pool = ThreadPoolExecutor(max(1, self._options.parallel), thread_name_prefix="sync")
        try:
            repositories = self._each(pool, self._repositories, list(rules))
            listed = self._each(pool, self._list, [rule for found in repositories if found for rule in found])
            work = [(one, tag) for one in listed if one for tag in one.tags]
            done = self._each(pool, lambda item: self._image(*item), work)
            if self._options.delete:
                self._each(pool, self._prune, list(self._whole(work, done)))
        except BaseException:
            self.stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return Report(tuple(self._outcomes), monotonic() - begun, dict(self._pulls_left), self._exact)

    def stop(self) -> None:
        """End as soon as can be, from any thread."""
        self._stopped.set()
        self._ends.abort()

    # What there is to do

    def _repositories(self, rule: Rule) -> list[Rule]:
        """The rule itself, or one for each repository of a registry."""
        if rule.kind != "registry":
            return [rule]
        return [
            replace(rule, kind="repository", source=f"{rule.source}/{name}", target=f"{rule.target}/{name}")
            for name in self._ends.repositories(rule.source)
            if name in rule.repositories
        ]

    def _list(self, rule: Rule) -> _Listed:
        if rule.kind == "image":
            return _Listed(rule, ("",), {})
        try:
            tags = self._ends.tags("source", rule.source)
        except TierceError:
            if not rule.tags:
                raise
            tags = []  # a registry that tells no lists still has the images that are named
        if tags is None:
            raise _missing(rule.source)
        companions: dict[str, tuple[str, ...]] = {}
        if rule.companions and parse_transport(rule.target)[0] in _TAGGED:
            for tag in tags:
                if digest := digest_of(tag):
                    companions[digest] = (*companions.get(digest, ()), tag)
        return _Listed(rule, rule.tags or rule.chosen(tags), companions)

    # One image

    def _image(self, listed: _Listed, tag: str) -> Digest:
        """The tag and its companions; the digest that it has at the target then."""
        pair = pair_of(listed.rule, tag)
        step = self._look(pair)
        digest = self._do(step)
        for companion in listed.companions.get(str(step.source.digest), ()):
            self._do(self._look(pair_of(listed.rule, companion)))
        return digest

    def _look(self, pair: Pair) -> Step:
        seen = self._seen_source(pair)
        found = self._ends.look("target", pair.target)
        step = decide(
            pair,
            seen.descriptor,
            found.descriptor if found else None,
            wanted=self._ends.wanted(pair, seen.descriptor),
            backup=lambda pair: backup_address(pair.target, self._name_backup(pair)),
            missing_only=self._options.missing_only,
        )
        if step.action == "unchanged" and pair.rule.recheck and not self._options.missing_only and self._has_more(step):
            return replace(step, action="copy", why="more refers to it", pulls=1)
        return step

    def _has_more(self, step: Step) -> bool:
        """Whether there are new referrers of an image that has not changed; asked once for all its tags."""
        assert step.target is not None, "an unchanged image is there"
        key = (step.pair.rule.source, step.pair.rule.target, step.target)
        if key not in self._asked:
            self._asked[key] = self._ends.has_new_referrers(step.pair, step.target)
        return self._asked[key]

    def _seen_source(self, pair: Pair) -> Seen:
        seen = self._ends.look("source", pair.source)
        if seen is None:
            raise _missing(pair.source)
        if seen.pulls_left is not None:
            with self._lock:
                self._pulls_left[pair.source.removeprefix("docker://").partition("/")[0]] = seen.pulls_left
        return seen

    def _do(self, step: Step) -> Digest:
        match step.action:
            case "unchanged":
                self._settle(Outcome.of("unchanged", step))
            case "leave":
                self._settle(Outcome.of("left out", step))
            case "copy" if self._options.dry_run:
                self._exact = self._exact and step.pulls_are_exact
                self._settle(Outcome.of("would copy", step))
            case "copy":
                self._wait_for_pulls(step)
                if step.backup:
                    self._ends.back_up(step)
                copied, size = self._ends.copy(step)
                self._settle(Outcome.of("copied", step, digest=str(copied.descriptor.digest), size=size))
                return copied.descriptor.digest
        return step.target or step.source.digest

    def _wait_for_pulls(self, step: Step) -> None:
        """As long as the registry says that too few remain."""
        floor = step.pair.rule.floor
        while floor.pulls and (left := self._seen_source(step.pair).pulls_left) is not None and left < floor.pulls:
            self._note(
                f"{step.pair.source}: {left} pulls remain, fewer than {floor.pulls}: waiting {floor.retry_s:.0f} s"
            )
            if self._stopped.wait(floor.retry_s):
                raise Cancelled("the sync was stopped")

    # What the source no longer has

    def _whole(
        self, work: Sequence[tuple[_Listed, str]], done: Sequence[Digest | None]
    ) -> Iterator[tuple[Rule, dict[str, Digest]]]:
        """Rules of whole repositories all of whose images are as they should be, and these images."""
        images: dict[int, tuple[Rule, dict[str, Digest | None]]] = {}
        for (listed, tag), digest in zip(work, done, strict=True):
            images.setdefault(id(listed), (listed.rule, {}))[1][tag] = digest
        for rule, digests in images.values():
            settled = {tag: digest for tag, digest in digests.items() if digest is not None}
            if rule.kind != "repository" or rule.tags:
                continue
            if len(settled) == len(digests):
                yield rule, settled
            else:
                self._note(f"{rule.target}: nothing is deleted, because something failed")

    def _prune(self, whole: tuple[Rule, dict[str, Digest]]) -> None:
        rule, wanted = whole
        if rule.backup:
            self._note(f"{rule.target}: nothing is deleted, as a backup there could not be told from a stray tag")
            return
        tags = [tag for tag in self._ends.tags("target", rule.target) or () if digest_of(tag) is None]
        digests: dict[str, Digest | None] = dict(wanted)
        for tag in tags:
            if tag not in digests:
                found = self._ends.look("target", pair_of(rule, tag).target)
                digests[tag] = found.descriptor.digest if found else None
        gone: set[Digest] = set()
        for removal in removals(rule, tags, wanted, digests):
            self._remove(removal, gone)

    def _remove(self, removal: Removal, gone: set[Digest]) -> None:
        if removal.kept or removal.digest is None:
            self._settle(Outcome.removed("kept", removal, removal.kept or "it is gone already"))
        elif self._options.dry_run:
            self._settle(Outcome.removed("would delete", removal))
        else:
            if removal.digest not in gone:
                self._ends.delete(removal.target, removal.digest)
                gone.add(removal.digest)
            self._settle(Outcome.removed("deleted", removal))

    # Many at a time

    def _each(self, pool: ThreadPoolExecutor, action: Callable[[_T], _R], items: Sequence[_T]) -> list[_R | None]:
        """The results in the order of the items; None for what failed, which becomes an outcome."""
        futures = {pool.submit(self._unless_stopped, action, item): position for position, item in enumerate(items)}
        results: list[_R | None] = [None] * len(items)
        for future in as_completed(futures):
            position = futures[future]
            try:
                results[position] = future.result()
            except Cancelled:
                self._settle(Outcome("not tried", *_ends_of(items[position])))
            except TierceError as error:
                self._settle(Outcome("failed", *_ends_of(items[position]), " ".join(str(error).split())))
                if not self._options.keep_going:
                    self._stopped.set()
        return results

    def _unless_stopped(self, action: Callable[[_T], _R], item: _T) -> _R:
        if self._stopped.is_set():
            raise Cancelled("the sync was stopped")
        return action(item)

    def _settle(self, outcome: Outcome) -> None:
        with self._lock:
            self._outcomes.append(outcome)
            self._tell(outcome)


def _ends_of(item: object) -> tuple[str, str]:
    """Source and target of whatever was to be done."""
    match item:
        case Rule() as rule:
            return rule.source, rule.target
        case (_Listed(rule=rule), str() as tag):
            pair = pair_of(rule, tag)
            return pair.source, pair.target
        case (Rule() as rule, _):
            return "", rule.target
        case _:
            raise AssertionError(item)


def _missing(address: str) -> ReferenceNotFound:
    return ReferenceNotFound(f"{address.removeprefix('docker://')} not found")
