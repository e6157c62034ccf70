"""Templates in the fields of regsync's files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from image.errors import InvalidInput
from image.platform import Platform
from tierce.cli.sync_templates import SyncTemplates
from transfer.sync import regsync

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def templates() -> SyncTemplates:
    return SyncTemplates({"HUB_USER": "alice"}, lambda: NOW)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ('{{env "HUB_USER"}}', "alice"),
        ('{{ env "UNSET" }}', ""),
        ('{{env "UNSET" | default "bob"}}', "bob"),
        ('{{default "bob" (env "HUB_USER")}}', "alice"),
        ("old-{{.Ref.Tag}}", "old-1.0"),
        ("{{.Ref.Registry}}/backups/{{.Ref.Repository}}:{{.Ref.Tag}}-{{time.Now.Unix}}", f"r.example.com/backups/a/b:1.0-{int(NOW.timestamp())}"),
        ('{{$t := time.Now}}{{printf "%s-%d%02d%02d" .Ref.Tag $t.Year $t.Month $t.Day}}', "1.0-20260203"),
        ('{{time.Now.Format "2006-01-02T15-04-05"}}', "2026-02-03T04-05-06"),
    ],
)  # fmt: skip
def test_what_is_rendered(templates: SyncTemplates, text: str, value: str) -> None:
    data = {"Ref": {"Registry": "r.example.com", "Repository": "a/b", "Tag": "1.0"}}
    assert templates.render(text, data) == value


def test_secrets_in_files(templates: SyncTemplates, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    assert templates.render(f'{{{{file "{tmp_path}/secret"}}}}') == "hunter2"


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("source: '{{file \"/nonexistent\"}}', target: b", r"sync\[0\].source: .*read /nonexistent: no such file"),
        ("source: a, target: '{{.Sync}}'", r"sync\[0\].target: "),
        ("source: a, target: '{{nothing}}'", r"sync\[0\].target: .*function 'nothing' is not defined"),
        ("source: a, target: '{{time.Now.Never}}'", r"sync\[0\].target: "),
    ],
)
def test_what_is_wrong_and_in_which_field(templates: SyncTemplates, field: str, words: str) -> None:
    text = f"sync: [{{{field}, type: image}}]"
    with pytest.raises(InvalidInput, match=words):
        regsync.parse(text.encode(), "sync.yml", templates.render, Platform("linux", "amd64"))
