"""ONBUILD of an image, where the build of a child starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Tierce

pytestmark = pytest.mark.root

PARENT = """\
FROM busybox
ONBUILD COPY --from=assets /a /from-stage
ONBUILD COPY --from=library /l /from-image
ONBUILD RUN --mount=type=bind,from=assets,target=/m cat /m/a /from-stage /from-image > /all
ONBUILD COPY <<text /text
$SEEN
text
ONBUILD ENV SEEN=later
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def build(tierce: Tierce, context: Path, name: str, text: str) -> None:
    (context / "Dockerfile").write_text(text)
    tierce("build", "--network=none", "-t", name, context)


def test_triggers_may_ask_for_stages_and_images(tierce_with_busybox: Tierce, context: Path) -> None:
    tierce = tierce_with_busybox
    build(tierce, context, "library", "FROM scratch\nCOPY <<e /l\nimage\ne\n")
    build(tierce, context, "parent", PARENT)
    child = (
        "FROM busybox AS first\nRUN echo stage > /a\nFROM first AS assets\nFROM parent\nRUN cat /all /text > /result\n"
    )
    build(tierce, context, "child", child)
    shown = tierce("run", "--rm", "--network=none", "child", "cat", "/result")
    assert shown.stdout == "stage\nstage\nimage\n\n"
    [config] = json.loads(tierce("inspect", "child").stdout)
    assert "SEEN=later" in config["Config"]["Env"]
    assert not config["Config"].get("OnBuild")


def test_a_trigger_that_asks_for_what_is_not_there_is_shown_at_from(tierce_with_busybox: Tierce, context: Path) -> None:
    build(tierce_with_busybox, context, "parent", "FROM scratch\nONBUILD COPY --from=127.0.0.1:1/assets /a /\n")
    (context / "Dockerfile").write_text("# one\nFROM parent\n")
    failed = tierce_with_busybox.attempt("build", context)
    assert failed.code == 1
    assert "   2 | >>> FROM parent" in failed.stderr
    assert "127.0.0.1:1" in failed.stderr.splitlines()[-1]
