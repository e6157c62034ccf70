"""Both dialects of a sync's YAML, and what is wrong with a file."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from image.errors import InvalidInput
from image.platform import Platform
from image.reference import Reference
from transfer.sync import regsync, skopeo
from transfer.sync.plan import at
from transfer.sync.rules import Access, Configuration, Floor, ReferrerFilter
from transfer.sync.schedule import next_due

HERE = Platform("linux", "amd64")
DIGEST = "sha256:" + "ab" * 32


def parse(text: str) -> Configuration:
    return regsync.parse(text.encode(), "sync.yml", lambda word: word.replace("{{user}}", "alice"), HERE)


class TestRegsync:
    def test_a_whole_file(self) -> None:
        found = parse(
            """
            x-common: &common {platforms: [linux/amd64, linux/arm64]}
            version: 1
            creds:
              - {registry: a.example.com, user: "{{user}}", pass: secret, tls: disabled}
            defaults:
              parallel: 3
              interval: 90m
              ratelimit: {min: 100, retry: 15m}
              backup: "old-{{.Ref.Tag}}"
            sync:
              - source: a.example.com/app
                target: b.example.com/mirror/app
                type: repository
                tags: {allow: ["1\\\\..*", latest], deny: [".*-rc.*"], semverRange: [">=1.2"]}
                <<: *common
              - source: busybox:1.36
                target: ocidir://mirror/busybox:1.36
                type: image
                schedule: "0 */6 * * *"
                ratelimit: {min: 5, retry: 1s}
                digestTags: false
              - source: a.example.com
                target: b.example.com/all
                type: registry
                repos: {deny: [private/.*]}
            """
        )
        whole, image, registry = found.rules
        assert found.parallel == 3
        assert found.access == {"a.example.com": Access("alice", "secret", insecure=True)}
        assert "secret" not in repr(found)
        assert (whole.source, whole.target) == ("docker://a.example.com/app", "docker://b.example.com/mirror/app")
        assert (whole.floor, whole.due, whole.backup) == (Floor(100, 900.0), "@every 5400s", "old-{{.Ref.Tag}}")
        assert whole.platforms == (HERE, Platform("linux", "arm64"))
        assert (image.kind, image.target, image.companions) == ("image", "oci:mirror/busybox:1.36", False)
        assert (image.due, image.floor) == ("0 */6 * * *", Floor(5, 300.0))
        assert "private/x" not in registry.repositories
        assert "public" in registry.repositories

    def test_what_chooses_tags(self) -> None:
        rule = parse(
            """
            sync:
              - source: a
                target: b
                type: repository
                tagSets:
                  - {semverRange: [">=1.2 <2"], deny: ["1\\\\.5.*"]}
                  - {allow: [edge]}
            """
        ).rules[0]
        tags = ["v1.2.0", "1.5.1", "1.9", "2.0", "edge", "edge-1", "latest", f"sha256-{'0' * 64}.sig"]
        assert rule.chosen(tags) == ("v1.2.0", "1.9", "edge")

    @pytest.mark.parametrize(
        ("fields", "recheck"),
        [
            ("", False),
            ("referrers: true", True),
            ("referrers: true, fastCheck: true", False),
            ("referrers: false", False),
        ],
    )
    def test_referrers_are_looked_for_again_where_they_are_asked_for(self, fields: str, recheck: bool) -> None:
        for text in (
            f"sync: [{{source: a, target: b, type: image, {fields}}}]",
            f"defaults: {{{fields}}}\nsync: [{{source: a, target: b, type: image}}]",
        ):
            (rule,) = parse(text).rules
            assert rule.recheck is recheck
            assert rule.referrers is (fields != "referrers: false")

    def test_which_referrers(self) -> None:
        (rule,) = parse(
            """
            sync:
              - source: a
                target: b
                type: image
                referrerFilters:
                  - {artifactType: application/spdx+json}
                  - {annotations: {stage: prod, any: ""}}
            """
        ).rules
        assert rule.referrer_filters == (
            ReferrerFilter("application/spdx+json"),
            ReferrerFilter("", (("stage", "prod"), ("any", ""))),
        )

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("defaults: {hooks: {pre: {type: script, params: [ls]}}}", "defaults.hooks: no commands are run"),
            ("sync: [{source: a, target: b, type: image, hooks: {}}]", r"sync\[0\].hooks: no commands are run"),
            ("sync: [{source: a, target: b, type: image, referrerFilters: [{artifact: x}]}]", "did you mean 'artifactType'"),
            ("sync: [{source: a, target: b, type: repo}]", r"sync.yml: sync\[0\].type is 'repo': write registry, "),
            ("sync: [{source: a, type: image}]", r"sync\[0\].target is missing"),
            ("sync: [{source: a, target: b, type: image, tag: x}]", r"sync\[0\].tag is not known: did you mean 'tags'"),
            ("sync: [{source: a, target: b, type: repository, tags: {allow: ['(']}}]", "no regular expression"),
            ("sync: [{source: a, target: b, type: repository, tags: {allow: [1.10]}}]", "write versions in quotes"),
            ("sync: [{source: a, target: b, type: repository, tags: [a]}]", r"tags should be a mapping"),
            ("sync: [{source: a, target: b, type: image, interval: 5}]", "interval should be a text"),
            ("sync: [{source: a, target: b, type: image, interval: 5 days}]", "duration such as 90s"),
            ("sync: [{source: ftp://a, target: b, type: image}]", "neither a registry's name"),
            ("creds: [{registry: a, tls: maybe}]", "write enabled, insecure or disabled"),
            ("version: 2", "version 2 is not known"),
            ("sync: [", "sync.yml:1: "),
            ("- a", "should be a mapping"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_and_where(self, text: str, words: str) -> None:
        with pytest.raises(InvalidInput, match=words):
            parse(text)


class TestSkopeo:
    def test_a_whole_file(self) -> None:
        found = skopeo.from_yaml(
            f"""
            a.example.com:
              images:
                busybox: []
                team/redis: ["6.0", "{DIGEST}"]
              images-by-tag-regex: {{nginx: "^1\\\\.13\\\\.[12]-alpine$"}}
              images-by-semver: {{alpine: ">= 3.12.0"}}
              credentials: {{username: bob, password: secret}}
              tls-verify: false
              cert-dir: /certs
            quay.io:
              images: {{coreos/etcd: [latest]}}
            """.encode(),
            "skopeo.yml",
            skopeo.Destination("docker", "b.example.com/mirror/"),
        )
        everything, named, expression, versions, etcd = found.rules
        assert found.access["a.example.com"] == Access("bob", "secret", "", True, "/certs")
        assert (everything.source, everything.target) == (
            "docker://a.example.com/busybox",
            "docker://b.example.com/mirror/busybox",
        )
        assert (named.target, named.tags) == ("docker://b.example.com/mirror/redis", ("6.0", DIGEST))
        assert expression.chosen(["1.13.1-alpine", "1.13.12-alpine", "x1.13.1-alpine"]) == ("1.13.1-alpine",)
        assert versions.chosen(["3.11", "3.12", "v4", "edge"]) == ("3.12", "v4")
        assert etcd.source == "docker://quay.io/coreos/etcd"

    def test_an_expression_may_match_anywhere(self) -> None:
        text = b"a.example.com: {images-by-tag-regex: {nginx: alpine}}"
        rule = skopeo.from_yaml(text, "s.yml", skopeo.Destination("docker", "b")).rules[0]
        assert rule.chosen(["1-alpine-2", "alpine", "debian"]) == ("1-alpine-2", "alpine")

    @pytest.mark.parametrize(
        ("scoped", "transport", "target"),
        [
            (False, "docker", "docker://b.example.com/m/app"),
            (True, "docker", "docker://b.example.com/m/a.example.com/team/app"),
            (False, "dir", "dir:b.example.com/m/app"),
            (True, "dir", "dir:b.example.com/m/a.example.com/team/app"),
        ],
    )
    def test_where_an_image_goes(self, scoped: bool, transport: skopeo.Transport, target: str) -> None:
        destination = skopeo.Destination(transport, "b.example.com/m", scoped)
        assert destination.of(Reference.parse("a.example.com/team/app")) == target

    def test_short_names_are_dockers(self) -> None:
        (rule,) = skopeo.from_registry("busybox:1", skopeo.Destination("docker", "b")).rules
        assert (rule.source, rule.tags) == ("docker://docker.io/library/busybox", ("1",))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a: {images: {b: ['x y']}}", "neither a tag nor a digest"),
            ("a: {images: {b: [sha256:12]}}", "neither a tag nor a digest"),
            ("a: {image: {b: []}}", "did you mean 'images'"),
            ("a: {images-by-semver: {b: latest}}", "no range of versions"),
        ],
    )
    def test_what_is_wrong_and_where(self, text: str, words: str) -> None:
        with pytest.raises(InvalidInput, match=words):
            skopeo.from_yaml(text.encode(), "s.yml", skopeo.Destination("docker", "b"))


def test_addresses() -> None:
    assert at("docker://a/b", "1") == "docker://a/b:1"
    assert at("docker://a/b", DIGEST) == f"docker://a/b@{DIGEST}"
    assert at("dir:/a/b", "1") == "dir:/a/b:1"


@pytest.mark.parametrize(
    ("due", "moment"),
    [
        ("@every 90s", "2026-02-27T22:31:30"), ("0 */6 * * *", "2026-02-28T00:00:00"),
        ("@hourly", "2026-02-27T23:00:00"), ("15 3 1 * *", "2026-03-01T03:15:00"),
    ],
)  # fmt: skip
def test_schedules(due: str, moment: str) -> None:
    now = datetime(2026, 2, 27, 22, 30, tzinfo=UTC)
    assert next_due(due, now) == datetime.fromisoformat(moment).replace(tzinfo=UTC)


@pytest.mark.parametrize("due", ["", "hourly", "* * *", "@every soon", "99 * * * *"])
def test_what_is_no_schedule(due: str) -> None:
    with pytest.raises(InvalidInput, match="five fields"):
        next_due(due, datetime(2026, 1, 1, tzinfo=UTC))
