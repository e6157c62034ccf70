"""A sync between two registries: what is asked of them, what is copied, and what never happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.registries import DOCKER_HUB, PLAIN, Emulator, emulate
from fixtures.registries.faults import refused
from image import media_types
from image.descriptor import Descriptor
from image.digest import Digest
from image.manifest import Index, Manifest
from image.platform import Platform
from tests.support.tiny_image import AMD64, ARM64, TinyImage, tiny_image, tiny_index
from tests.support.transfers import QUICK, anonymous_registries
from transfer.artifacts import EMPTY_CONFIG
from transfer.registries import RegistryOptions
from transfer.registries_conf.values import Mirror, RegistriesConf
from transfer.registries_conf.values import Rule as Redirection
from transfer.sync.ends import Ends
from transfer.sync.perform import Sync, SyncOptions
from transfer.sync.plan import Pair
from transfer.sync.report import Outcome, Report
from transfer.sync.rules import Floor, ReferrerFilter, Rule, Selection, pattern

Run = Callable[..., Report]


@pytest.fixture
def source() -> Iterator[Emulator]:
    with emulate(PLAIN) as registry:
        yield registry


@pytest.fixture
def target() -> Iterator[Emulator]:
    with emulate(PLAIN) as registry:
        yield registry


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def run(notes: list[str]) -> Iterator[Run]:
    """Performs rules between registries on loopback; a backup's template is the tag's prefix."""
    with anonymous_registries(RegistryOptions(insecure=True, retry=QUICK)) as registries:

        def run(*rules: Rule, told: Callable[[Outcome], None] = lambda _: None, **options: object) -> Report:
            ends = Ends(lambda _side, _host: registries, AMD64, QUICK)
            backup: Callable[[Pair], str] = lambda pair: f"{pair.rule.backup}{pair.tag}"  # noqa: E731
            chosen = replace(SyncOptions(), **options)  # type: ignore[arg-type]
            return Sync(ends, chosen, name_backup=backup, tell=told, note=notes.append).run(rules)

        yield run


def image(text: str, platform: Platform = AMD64) -> TinyImage:
    return tiny_image({"file": text.encode()}, platform=platform)


def add(registry: Emulator, repository: str, tag: str, what: TinyImage) -> str:
    return registry.add_image(repository, tag, what.manifest.media_type, what.manifest.raw, what.blobs)


def add_index(registry: Emulator, repository: str, tag: str, images: list[TinyImage]) -> Index:
    index = tiny_index(images)
    for each in images:
        add(registry, repository, str(each.manifest.digest), each)
    registry.add_manifest(repository, tag, index.media_type, index.raw)
    return index


def rule(source: Emulator, target: Emulator, name: str = "app", **more: object) -> Rule:
    base = Rule("repository", f"docker://{source.host}/{name}", f"docker://{target.host}/mirror/{name}")
    return replace(base, **more)  # type: ignore[arg-type]


def tags(registry: Emulator, repository: str = "mirror/app") -> dict[str, str]:
    return dict(registry.content().get(repository, {}).get("tags", {}))


def statuses(report: Report) -> dict[str, str]:
    return {(outcome.target or outcome.source).rpartition(":")[2]: outcome.status for outcome in report.outcomes}


def test_what_differs_is_copied_and_a_second_run_asks_and_leaves(source: Emulator, target: Emulator, run: Run) -> None:
    wanted = {f"1.{number}": add(source, "app", f"1.{number}", image(str(number))) for number in range(5)}
    first = run(rule(source, target))
    assert tags(target) == wanted
    assert first.count() == {"copied": 5}
    assert sum(outcome.size for outcome in first.outcomes) > 0
    source.requests.clear()
    target.requests.clear()
    second = run(rule(source, target))
    assert second.count() == {"unchanged": 5}
    assert len(source.seen("HEAD .*/manifests/")) == len(target.seen("HEAD .*/manifests/")) == 5
    assert source.seen("GET .*/manifests/") == target.seen("GET .*/manifests/") == []
    assert target.seen("PUT|POST|PATCH") == []


def test_a_moved_tag_is_copied_and_what_it_was_saved(source: Emulator, target: Emulator, run: Run) -> None:
    old = add(source, "app", "latest", image("old"))
    run(rule(source, target))
    new = add(source, "app", "latest", image("new"))
    report = run(rule(source, target, backup="was-"))
    assert tags(target) == {"latest": new, "was-latest": old}
    (outcome,) = report.outcomes
    assert (outcome.status, outcome.was, outcome.digest) == ("copied", old, new)
    assert outcome.backup == f"docker://{target.host}/mirror/app:was-latest"


def test_an_index_comes_whole_or_with_the_platforms_wanted(source: Emulator, target: Emulator, run: Run) -> None:
    images = [image("one"), image("two", ARM64)]
    index = add_index(source, "app", "1", images)
    run(rule(source, target))
    assert tags(target)["1"] == str(index.digest)
    one = replace(rule(source, target, platforms=(ARM64,)), target=f"docker://{target.host}/one")
    assert run(one).count() == {"copied": 1}
    assert tags(target, "one") == {"1": str(images[1].manifest.digest)}
    assert run(one).count() == {"unchanged": 1}


def test_signatures_by_tag_come_along_also_later(source: Emulator, target: Emulator, run: Run) -> None:
    digest = add(source, "app", "1", image("app"))
    run(rule(source, target))
    signature = add(source, "app", digest.replace(":", "-") + ".sig", image("signature"))
    add(source, "app", "sha256-" + "0" * 64 + ".sig", image("of another"))
    report = run(rule(source, target))
    assert tags(target) == {"1": digest, digest.replace(":", "-") + ".sig": signature}
    assert report.count() == {"unchanged": 1, "copied": 1}
    assert run(rule(source, target, companions=False)).count() == {"unchanged": 1}


def refer(registry: Emulator, subject: str, kind: str, **annotations: str) -> str:
    """Something of a type that refers to a manifest of the repository ``app``."""
    descriptor = Descriptor(media_types.OCI_MANIFEST, Digest(subject), 1)
    manifest = Manifest.build(
        EMPTY_CONFIG, [EMPTY_CONFIG], subject=descriptor, artifact_type=kind, annotations=annotations
    )
    registry.add_blob("app", b"{}")
    return registry.add_manifest("app", str(manifest.digest), manifest.media_type, manifest.raw)


def manifests(registry: Emulator, repository: str = "mirror/app") -> set[str]:
    return set(registry.content()[repository]["manifests"])


def test_referrers_that_are_added_later(source: Emulator, target: Emulator, run: Run) -> None:
    digest = add(source, "app", "1", image("app"))
    add(source, "app", "also-1", image("app"))
    add(source, "app", "2", image("another"))
    run(rule(source, target))
    added = refer(source, digest, "application/vnd.example.sbom")
    assert run(rule(source, target)).count() == {"unchanged": 3}
    assert added not in manifests(target)
    source.requests.clear()
    report = run(rule(source, target, recheck=True), parallel=1)
    assert {outcome.status for outcome in report.outcomes if not outcome.target.endswith(":2")} == {"copied"}
    assert added in manifests(target)
    source.requests.clear()
    assert run(rule(source, target, recheck=True), parallel=1).count() == {"unchanged": 3}
    assert len(source.seen("GET .*/referrers/")) == 2  # one a digest
    assert source.seen("GET .*/manifests/") == []


def test_only_the_referrers_that_are_wanted(source: Emulator, target: Emulator, run: Run) -> None:
    digest = add(source, "app", "1", image("app"))
    sbom = refer(source, digest, "application/vnd.example.sbom")
    signed = refer(source, digest, "application/vnd.example.signature", stage="prod")
    refer(source, digest, "application/vnd.example.signature", stage="test")
    refer(source, digest, "application/vnd.example.scan")
    filters = (
        ReferrerFilter("application/vnd.example.sbom"),
        ReferrerFilter("application/vnd.example.signature", (("stage", "prod"),)),
    )
    wanted = rule(source, target, referrer_filters=filters, recheck=True)
    assert run(wanted).count() == {"copied": 1}
    assert manifests(target) == {digest, sbom, signed}
    assert run(wanted).count() == {"unchanged": 1}
    anything = replace(wanted, referrer_filters=(ReferrerFilter(annotations=(("stage", ""),)),))
    assert run(anything).count() == {"copied": 1}
    assert len(manifests(target)) == 4


def test_tags_are_looked_up_where_they_are_pulled_from(source: Emulator, target: Emulator) -> None:
    digest = add(source, "mirrored/app", "1", image("1"))
    mirror = Mirror(f"{source.host}/mirrored")
    conf = RegistriesConf((Redirection("registry.invalid", location="registry.invalid", mirrors=(mirror,)),))

    def sync(ends: Ends) -> dict[str, int]:
        mirrored = Rule("image", "docker://registry.invalid/app:1", f"docker://{target.host}/app:1")
        quiet = Sync(ends, SyncOptions(), name_backup=lambda _: "", tell=lambda _: None, note=lambda _: None)
        return {str(status): count for status, count in quiet.run([mirrored]).count().items()}

    with anonymous_registries(RegistryOptions(insecure=True, retry=QUICK, conf=conf)) as registries:
        ends = Ends(lambda _side, _host: registries, AMD64, QUICK)
        assert sync(ends) == {"copied": 1}
        assert tags(target, "app") == {"1": digest}
        assert sync(ends) == {"unchanged": 1}


def test_one_failure_leaves_the_others_and_fails_the_whole(source: Emulator, target: Emulator, run: Run) -> None:
    for tag in ("1", "2", "3"):
        add(source, "app", tag, image(tag))
    blob = next(digest for digest in image("2").blobs if digest not in image("1").blobs)
    source.on(f"GET .*/blobs/{blob}", refused(403, "DENIED", "not yours"), times=100)
    report = run(rule(source, target), rule(source, target, "absent"))
    assert report.failed
    assert sorted(tags(target)) == ["1", "3"]
    assert statuses(report)["2"] == statuses(report)[f"{target.host.rpartition(':')[2]}/mirror/absent"] == "failed"


def test_without_keep_going_the_rest_is_not_tried(source: Emulator, target: Emulator, run: Run) -> None:
    for tag in ("1", "2", "3"):
        add(source, "app", tag, image(tag))
    source.on("HEAD .*/manifests/1$", refused(403), times=100)
    report = run(rule(source, target), keep_going=False, parallel=1)
    assert report.count()["failed"] == 1
    assert report.count()["not tried"] + report.count()["copied"] == 2
    assert report.count()["not tried"] >= 1


def test_a_dry_run_changes_nothing_and_counts_pulls(source: Emulator, target: Emulator, run: Run) -> None:
    add(source, "app", "1", image("1"))
    add_index(source, "app", "2", [image("a"), image("b", ARM64)])
    add(target, "mirror/app", "stray", image("stray"))
    before = target.content()
    report = run(rule(source, target), dry_run=True, delete=True)
    assert statuses(report) == {"1": "would copy", "2": "would copy", "stray": "would delete"}
    assert target.content() == before
    assert (report.pulls, report.exact) == (2, False)
    assert source.seen("GET .*/manifests/") == []


def test_delete_prunes_and_spares_what_a_wanted_tag_needs(source: Emulator, target: Emulator, run: Run) -> None:
    digest = add(source, "app", "1", image("1"))
    add(target, "mirror/app", "gone", image("gone"))
    add(target, "mirror/app", "same", image("1"))
    report = run(rule(source, target), delete=True)
    assert statuses(report) == {"1": "copied", "gone": "deleted", "same": "kept"}
    assert tags(target) == {"1": digest, "same": digest}


def test_nothing_is_deleted_when_anything_failed(
    source: Emulator, target: Emulator, run: Run, notes: list[str]
) -> None:
    add(source, "app", "1", image("1"))
    add(target, "mirror/app", "stray", image("stray"))
    source.on("HEAD .*/manifests/1$", refused(403), times=100)
    run(rule(source, target), delete=True)
    assert "stray" in tags(target)
    assert any("because something failed" in note for note in notes)


def test_nothing_is_deleted_when_the_source_is_gone(source: Emulator, target: Emulator, run: Run) -> None:
    add(target, "mirror/app", "1", image("1"))
    assert run(rule(source, target), delete=True).failed
    assert "1" in tags(target)


def test_a_floor_waits_for_pulls_to_come_back(target: Emulator, run: Run, notes: list[str]) -> None:
    with emulate(replace(DOCKER_HUB, auth="none", token_host="", blob_host="", pulls=5)) as hub:
        add(hub, "app", "1", image("1"))
        hub.on("HEAD .*/manifests/", lambda exchange, proceed: _with_left(exchange, proceed, 3), times=2)
        report = run(rule(hub, target, floor=Floor(4, 0.01)))
    assert report.count() == {"copied": 1}
    assert len(notes) == 1
    assert "3 pulls remain, fewer than 4" in notes[0]


def _with_left(exchange: object, proceed: Callable[[], None], left: int) -> None:
    from fixtures.registries.faults import with_headers

    with_headers(**{"ratelimit-remaining": f"{left};w=60"})(exchange, proceed)  # type: ignore[arg-type]


def test_media_types_and_missing_only(source: Emulator, target: Emulator, run: Run) -> None:
    add(source, "app", "1", image("1"))
    kept = run(rule(source, target, media_types=frozenset({"application/vnd.example"})))
    assert kept.count() == {"left out": 1}
    run(rule(source, target))
    add(source, "app", "1", image("moved"))
    assert run(rule(source, target), missing_only=True).count() == {"left out": 1}


def test_into_directories_and_back(source: Emulator, target: Emulator, run: Run, tmp_path: Path) -> None:
    digest = add(source, "app", "1", image("1"))
    there = replace(rule(source, target), target=f"dir:{tmp_path}/below/app", companions=False)
    assert run(there).count() == {"copied": 1}
    assert run(there).count() == {"unchanged": 1}
    back = Rule("image", f"dir:{tmp_path}/below/app:1", f"docker://{target.host}/back:1")
    assert run(back).count() == {"copied": 1}
    assert tags(target, "back") == {"1": digest}


def test_into_a_layout(source: Emulator, target: Emulator, run: Run, tmp_path: Path) -> None:
    for tag in ("1", "2"):
        add(source, "app", tag, image(tag))
    there = replace(rule(source, target), target=f"oci:{tmp_path}/layout")
    assert run(there).count() == {"copied": 2}
    assert run(there).count() == {"unchanged": 2}
    back = Rule("repository", f"oci:{tmp_path}/layout", f"docker://{target.host}/back")
    run(back)
    assert tags(target, "back") == tags(source, "app")


def test_a_thousand_tags_of_fifty_repositories(source: Emulator, target: Emulator, run: Run) -> None:
    shared = [image(str(number)) for number in range(20)]
    for repository in range(50):
        for number, each in enumerate(shared):
            add(source, f"team/app{repository}", f"1.{number}", each)
    rules = [
        rule(source, target, f"team/app{number}", selections=(Selection(deny=(pattern(r"1\.1\d"),)),))
        for number in range(50)
    ]
    report = run(*rules, parallel=8)
    assert report.count() == {"copied": 500}
    assert len(target.content()) == 50
    source.requests.clear()
    assert run(*rules, parallel=8).count() == {"unchanged": 500}
    assert len(source.seen("HEAD")) == 500
    assert source.seen("GET .*/manifests/") == []


def test_a_registry_is_all_its_repositories_but_those_denied(target: Emulator, run: Run) -> None:
    with emulate(replace(PLAIN, catalog="next_page", page_limit=10_000)) as source:
        for name in ("a/one", "a/two", "private/x"):
            add(source, name, "1", image(name))
        whole = Rule(
            "registry", f"docker://{source.host}", f"docker://{target.host}/all",
            repositories=Selection(deny=(pattern("private/.*"),)),
        )  # fmt: skip
        assert run(whole).count() == {"copied": 2}
    assert sorted(target.content()) == ["all/a/one", "all/a/two"]


def test_a_registry_that_tells_no_repositories(target: Emulator, run: Run) -> None:
    with emulate(replace(PLAIN, catalog="missing")) as source:
        report = run(Rule("registry", f"docker://{source.host}", f"docker://{target.host}"))
    (outcome,) = report.outcomes
    assert outcome.status == "failed"


def test_a_registry_that_does_not_delete_says_so(source: Emulator, run: Run) -> None:
    add(source, "app", "1", image("1"))
    with emulate(replace(PLAIN, deletes="not-allowed")) as target:
        add(target, "mirror/app", "stray", image("stray"))
        report = run(rule(source, target), delete=True)
        assert "stray" in tags(target)
    (failed,) = (outcome for outcome in report.outcomes if outcome.status == "failed")
    assert "does not allow deleting" in failed.why
