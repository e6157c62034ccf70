"""Requests and replies as values: what is parsed, what is refused, what is clamped."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.digest import Digest
from image.errors import RegistryError, TierceError
from transfer.registry import replies, wire
from transfer.registry.wire import Headers, Request

NOW_S = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def headers(**fields: str) -> Headers:
    return Headers(tuple((name.replace("_", "-"), value) for name, value in fields.items()))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param('Basic realm="a, b"', [("basic", {"realm": "a, b"})], id="comma-in-quotes"),
        pytest.param(
            'Bearer realm="https://auth/token",service="reg",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://auth/token", "service": "reg", "scope": "repository:a/b:pull,push"})],
            id="docker",
        ),
        pytest.param(
            'Bearer realm="x", error=insufficient_scope, Basic realm="y"',
            [("bearer", {"realm": "x", "error": "insufficient_scope"}), ("basic", {"realm": "y"})],
            id="two-in-one-field",
        ),
        pytest.param('Bearer realm="say \\"hi\\""', [("bearer", {"realm": 'say "hi"'})], id="escapes"),
        pytest.param("Negotiate", [("negotiate", {})], id="bare-scheme"),
        pytest.param("", [], id="empty"),
        pytest.param('=== "', [], id="nonsense"),
        pytest.param('Basic Realm="x", realm="evil"', [("basic", {"realm": "x"})], id="first-parameter-wins"),
    ],
)
def test_challenges(value: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    found = wire.challenges(headers(WWW_Authenticate=value))
    assert [(challenge.scheme, dict(challenge.parameters)) for challenge in found] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param("0", 0.0, id="zero"),
        pytest.param("-5", 0.0, id="negative"),
        pytest.param("99999999999", replies.MAX_RETRY_AFTER_S, id="huge"),
        pytest.param("Tue, 14 Nov 2023 22:13:30 GMT", 10.0, id="date"),
        pytest.param("Tue, 14 Nov 2000 22:13:30 GMT", 0.0, id="past-date"),
        pytest.param("Tue, 14 Nov 2999 22:13:30 GMT", replies.MAX_RETRY_AFTER_S, id="far-date"),
        pytest.param("soon", None, id="garbage"),
        pytest.param("", None, id="empty"),
    ],
)
def test_retry_after_is_clamped(value: str, expected: float | None) -> None:
    assert replies.retry_after_s(headers(Retry_After=value), NOW_S) == expected


class TestRedirects:
    def follow(self, url: str, location: str) -> Request:
        request = Request("GET", url, {"Authorization": "Bearer secret", "Accept": "x"})
        return wire.redirected(request, headers(Location=location))

    def test_same_host_keeps_authorization(self) -> None:
        assert self.follow("https://r.example/v2/a", "/v2/b").headers["Authorization"] == "Bearer secret"

    @pytest.mark.parametrize(
        "location", ["https://cdn.example/b", "https://r.example:444/b", "//r.example.evil/b"], ids=str
    )
    def test_other_origin_loses_authorization(self, location: str) -> None:
        assert self.follow("https://r.example/v2/a", location).headers == {"Accept": "x"}

    @pytest.mark.parametrize(
        ("url", "location"),
        [
            pytest.param("https://r.example/a", "http://r.example/a", id="https-to-http"),
            pytest.param("https://r.example/a", "https://127.0.0.1/a", id="public-to-loopback"),
            pytest.param("https://r.example/a", "https://localhost/a", id="public-to-localhost"),
            pytest.param("https://r.example/a", "https://169.254.169.254/a", id="public-to-metadata-service"),
            pytest.param("https://r.example/a", "https://[::1]/a", id="public-to-ipv6-loopback"),
            pytest.param("https://r.example/a", "https://[::ffff:127.0.0.1]/a", id="public-to-mapped-loopback"),
            pytest.param("https://r.example/a", "https://10.0.0.1/a", id="public-to-private"),
            pytest.param("https://r.example/a", "ftp://r.example/a", id="other-scheme"),
            pytest.param("https://r.example/a", "https://[::1/a", id="malformed"),
            pytest.param("https://r.example/a", "https://r.example:99999/", id="bad-port"),
        ],
    )
    def test_refused(self, url: str, location: str) -> None:
        with pytest.raises(RegistryError):
            self.follow(url, location)


class TestPages:
    def test_relative_link_is_resolved(self) -> None:
        found = wire.next_page("https://r/v2/a/tags/list", headers(Link='</v2/a/tags/list?last=b&n=2>; rel="next"'))
        assert found == "https://r/v2/a/tags/list?last=b&n=2"

    def test_other_relations_are_passed_over(self) -> None:
        assert wire.next_page("https://r/x", headers(Link='</a>; rel="prev", </b>; rel="next"')) == "https://r/b"

    @pytest.mark.parametrize("target", ["https://evil/x", "http://r/x", "https://[/x", "mailto:x"])
    def test_other_places_are_refused(self, target: str) -> None:
        with pytest.raises(RegistryError, match="next page"):
            wire.next_page("https://r/x", headers(Link=f'<{target}>; rel="next"'))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("bytes 10-99/100", True, id="exact"),
        pytest.param("bytes 10-99/*", True, id="total-unknown"),
        pytest.param("bytes 0-99/100", False, id="from-the-start"),
        pytest.param("bytes 11-99/100", False, id="gap"),
        pytest.param("bytes 10-98/100", False, id="short"),
        pytest.param("bytes 10-99/200", False, id="other-total"),
        pytest.param("10-99/100", False, id="no-unit"),
        pytest.param("", False, id="absent"),
    ],
)
def test_only_the_exact_rest_continues_a_blob(value: str, expected: bool) -> None:
    assert wire.continues(headers(Content_Range=value), 10, 100) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"errors":[{"code":"DENIED","message":"no"}]}', [("DENIED", "no")], id="spec"),
        pytest.param(b'{"message":"rate limited"}', [("", "rate limited")], id="message-only"),
        pytest.param(b'{"errors":[1,{"code":5}]}', [], id="wrong-types"),
        pytest.param(b"<html><title>502 Bad Gateway</title>" + b"x" * 10**6, [("", "502 Bad Gateway")], id="html"),
        pytest.param(b"plain \x1b[31mred\x1b[0m text", [("", "plain [31mred [0m text")], id="ansi"),
        pytest.param(b"[" * 100_000, [("", "[" * 297 + "...")], id="deep-json"),
        pytest.param(b"", [], id="empty"),
    ],
)
def test_error_bodies(body: bytes, expected: list[tuple[str, str]]) -> None:
    assert [(problem.code, problem.message) for problem in replies.problems(body)] == expected


def test_warnings_are_sanitized_and_not_repeated() -> None:
    given_headers = Headers(
        (("Warning", '299 - "use \\"v3\\"\x1b[2J"'), ("warning", '299 - "use \\"v3\\"\x1b[2J"'), ("Warning", "199 - x"))
    )
    assert replies.warnings(given_headers) == ['use "v3" [2J']


def test_upload_location_keeps_its_query() -> None:
    digest = Digest.of(b"")
    url = wire.finish_url("https://r/u/1?_state=a%2Bb&x=1", digest)
    assert url == f"https://r/u/1?_state=a%2Bb&x=1&digest=sha256%3A{digest.encoded}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("https://user:secret@r/a?X-Amz-Signature=secret", "https://r/a", id="user-and-query"),
        pytest.param("https://r/a#secret", "https://r/a", id="fragment"),
        pytest.param("https://u:secret@[::1/a", "https://[::1/a", id="malformed"),
    ],
)
def test_redacted(url: str, expected: str) -> None:
    assert wire.redact(url) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"RateLimit_Limit": "100;w=21600", "ratelimit_remaining": "76;w=21600"}, (100, 76, 21_600), id="docker-hub"),
        pytest.param({"RateLimit_Remaining": "0"}, (None, 0, None), id="remaining-alone"),
        pytest.param({"RateLimit_Limit": "100;w=60", "RateLimit_Remaining": "7"}, (100, 7, 60), id="one-window"),
        pytest.param({"RateLimit_Limit": "100;w=60"}, None, id="limit-alone"),
        pytest.param({"RateLimit_Remaining": "-1"}, None, id="negative"),
        pytest.param({"RateLimit_Remaining": "9" * 40}, None, id="huge"),
        pytest.param({"RateLimit_Remaining": "many;w=x"}, None, id="nonsense"),
    ],
)  # fmt: skip
def test_rate_limits(fields: dict[str, str], expected: tuple[int | None, int, int | None] | None) -> None:
    found = replies.rate_limit(headers(**fields))
    assert (None if found is None else (found.limit, found.remaining, found.window_s)) == expected


@pytest.mark.parametrize(
    ("known", "wanted", "does"),
    [
        pytest.param(["repository:a:pull,push"], ["repository:a:pull"], True, id="push-serves-pull"),
        pytest.param(["repository:a:pull"], ["repository:a:pull,push"], False, id="pull-serves-no-push"),
        pytest.param(["repository:a:pull", "repository:b:pull"], ["repository:b:pull"], True, id="mount-serves-each"),
        pytest.param(["repository:a:pull"], ["repository:b:pull"], False, id="another-repository"),
        pytest.param(["repository:host:5000/a:pull"], ["repository:host:5000/a:pull"], True, id="colons"),
        pytest.param([], [], True, id="nothing-for-nothing"),
    ],
)
def test_token_that_serves_for_less(known: list[str], wanted: list[str], does: bool) -> None:
    assert wire.covers(known, wanted) is does


@given(st.text(max_size=300))
def test_no_header_value_crashes_the_parsers(value: str) -> None:
    everything = Headers(tuple((name, value) for name in ("WWW-Authenticate", "Link", "Location", "Retry-After", "Warning", "Content-Range", "RateLimit-Limit", "RateLimit-Remaining")))  # fmt: skip
    wire.challenges(everything)
    replies.retry_after_s(everything, NOW_S)
    wire.content_range(everything)
    replies.rate_limit(everything)
    assert all(text.isprintable() for text in replies.warnings(everything))
    with suppress(TierceError):
        wire.next_page("https://r/x", everything)
    with suppress(TierceError):
        wire.resolve_location("https://r/x", everything)


@given(st.binary(max_size=2000))
def test_no_error_body_crashes(body: bytes) -> None:
    assert all(problem.message.isprintable() for problem in replies.problems(body))
