"""Which ids an ordinary user has, and how they are mapped."""

from __future__ import annotations

import pytest

from runner.network.ports import Port
from runner.network.rootless import pasta_arguments, slirp_requests
from runner.runtime.user_namespace import map_arguments, parse_ranges
from store.owners import Record


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("alice:100000:65536\n", ((100000, 65536),), id="by-name"),
        pytest.param("1000:5:6\n", ((5, 6),), id="by-number"),
        pytest.param("bob:1:2\nalice:3:4\nalice:9:1\n", ((3, 4), (9, 1)), id="several"),
        pytest.param("alice:x:65536\nalice:1\n\nalice:7:0\n#alice:1:1\n", (), id="malformed"),
        pytest.param("alice2:1:2\n", (), id="another"),
    ],
)
def test_ranges(text: str, found: tuple[tuple[int, int], ...]) -> None:
    assert parse_ranges(text, "alice", 1000) == found


def test_the_users_own_id_is_root_and_ranges_follow() -> None:
    assert map_arguments(1000, ((100000, 10), (500, 5))) == ["0", "1000", "1", "1", "100000", "10", "11", "500", "5"]


def test_ports_for_pasta() -> None:
    words = pasta_arguments("/n", "/r", [Port(80, 8080), Port(53, 5353, "127.0.0.1", "udp")])
    assert words[words.index("--tcp-ports") + 1] == "8080:80"
    assert words[words.index("--udp-ports") + 1] == "127.0.0.1/5353:53"


def test_ports_for_slirp4netns() -> None:
    assert b'"host_addr": "127.0.0.1", "host_port": 8080, "guest_port": 80' in next(
        slirp_requests([Port(80, 8080, "127.0.0.1")])
    )


@pytest.mark.parametrize(
    ("data", "record"),
    [
        pytest.param(b"33:44", Record(33, 44), id="owner"),
        pytest.param(b"0:6:c:259", Record(0, 6, 0o20000, 259), id="character-device"),
        pytest.param(b"0:6:b:2048", Record(0, 6, 0o60000, 2048), id="block-device"),
        pytest.param(b"33", None, id="too-short"),
        pytest.param(b"-1:0", None, id="negative"),
        pytest.param(b"4294967296:0", None, id="too-large"),
        pytest.param(b"0:0:d:1", None, id="no-such-kind"),
    ],
)
def test_records(data: bytes, record: Record | None) -> None:
    assert Record.decode(data) == record
    if record is not None:
        assert record.encode() == data
