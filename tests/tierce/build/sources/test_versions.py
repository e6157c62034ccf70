"""What a server's reply to HEAD says about a file that was downloaded before."""

from __future__ import annotations

import pytest

from tierce.build.downloads import Version
from transfer.registry.wire import Headers

TIME = "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    ("kept", "status", "reply", "same"),
    [
        (Version('"1"'), 304, {}, True),
        (Version('"1"'), 200, {"ETag": '"1"'}, True),
        (Version('"1"'), 200, {"ETag": 'W/"1"'}, True),
        (Version('"1"'), 200, {"ETag": '"2"'}, False),
        (Version('"1"', TIME), 200, {"Last-Modified": TIME}, False),
        (Version('"1"'), 200, {"ETag": '"1"', "Content-Length": "5"}, False),
        (Version("", TIME), 200, {"Last-Modified": TIME, "Content-Length": "4"}, True),
        (Version("", TIME), 200, {"Last-Modified": TIME, "ETag": '"new"'}, False),
        (Version("", TIME), 200, {"Last-Modified": "Wed, 15 Nov 2023 22:13:20 GMT"}, False),
        (Version(), 200, {}, False),
        (Version('"1"'), 404, {"ETag": '"1"'}, False),
        (Version('"1"'), 405, {}, False),
    ],
)
def test_whether_a_file_is_still_the_same(kept: Version, status: int, reply: dict[str, str], same: bool) -> None:
    assert kept.is_still(status, Headers(tuple(reply.items())), size=4) is same


@pytest.mark.parametrize(
    ("reply", "version"),
    [
        ({"ETag": '"1"', "Last-Modified": TIME}, Version('"1"', TIME)),
        ({"etag": '"a b"'}, Version()),
        ({"ETag": '"' + "x" * 300 + '"'}, Version()),
        ({"Last-Modified": "a | b"}, Version()),
        ({"ETag": '"\x1b[31m"'}, Version()),
    ],
    ids=["both", "a blank in it", "too long", "our own separator", "an escape sequence"],
)
def test_what_is_kept_of_a_reply(reply: dict[str, str], version: Version) -> None:
    assert Version.of(Headers(tuple(reply.items()))) == version


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(TIME, 1_700_000_000), ("", 0), ("soon", 0), ("Thu, 01 Jan 1960 00:00:00 GMT", 0), ("Mon, 99 Foo 99999999", 0)],
)
def test_the_time_of_a_file(text: str, seconds: int) -> None:
    assert Version("", text).modified_s == seconds
