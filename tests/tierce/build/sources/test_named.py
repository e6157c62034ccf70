"""Named contexts stand before stages and images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.context import Context
from builder.named import NamedFiles, NamedImage
from builder.progress import StepDone
from image.platform import Platform
from image.reference import Reference
from store.store import Store
from tests.tierce.build.sources.conftest import Bench
from tests.tierce.build.test_building import HERE, OPTIONS
from transfer.archives import load
from transfer.copy import CopyOptions

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("name", "dockerfile", "expected"),
    [
        ("base", "FROM base", {"f": "644 0:0 named"}),
        ("base", "FROM scratch AS base\nCOPY f /x\nFROM base", {"f": "644 0:0 named"}),
        ("base", "FROM absent.invalid/x AS base\nRUN x\nFROM scratch\nCOPY --from=base / /", {"f": "644 0:0 named"}),
        ("base", "FROM absent.invalid/x AS base\nFROM scratch\nCOPY --from=0 f /g", {"g": "644 0:0 named"}),
        ("base", "FROM absent.invalid/x AS base", {"f": "644 0:0 named"}),
        ("busybox", "FROM busybox:latest", {"f": "644 0:0 named"}),
        ("busybox", "FROM scratch\nCOPY --from=BusyBox f /", {"f": "644 0:0 named"}),
        ("busybox", "FROM scratch\nADD f /\nCOPY --from=docker.io/library/busybox f /g", {"f": "644 0:0 main", "g": "644 0:0 named"}),
    ],
)  # fmt: skip
def test_a_named_context_stands_before_stages_and_images(
    bench: Bench, tmp_path: Path, name: str, dockerfile: str, expected: dict[str, str]
) -> None:
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "f").write_text("named")
    (tmp_path / "named" / "hidden").write_text("hidden")
    (tmp_path / "named" / ".dockerignore").write_text("hidden\n.dockerignore\n")
    bench.write(f="main")
    bench.contexts = {name: Context.load(tmp_path / "named")}
    plan = replace(OPTIONS, contexts={name: NamedFiles()})
    assert bench.listing(bench.build(dockerfile, plan)) == expected
    bench.build(dockerfile, plan)
    assert bench.names(StepDone) == []


def test_a_name_may_stand_for_an_image(bench: Bench, busybox_archive: Path) -> None:
    with Store.open(bench.root) as store:
        load(str(busybox_archive), store, CopyOptions(HERE))
    image = NamedImage(Reference.parse("busybox").with_default_tag())
    plan = replace(OPTIONS, contexts={"tools": image})
    built = bench.build(
        'FROM scratch\nCOPY --from=tools /bin/busybox /b\nRUN --mount=from=tools,target=/t ["/t/bin/true"]', plan
    )
    assert "b" in bench.listing(built)


def test_mounts_read_from_named_contexts(bench: Bench, tmp_path: Path, busybox_archive: Path) -> None:
    with Store.open(bench.root) as store:
        load(str(busybox_archive), store, CopyOptions(HERE))
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "f").write_text("1")
    bench.contexts = {"files": Context.load(tmp_path / "named")}
    plan = replace(OPTIONS, contexts={"files": NamedFiles()})
    text = "FROM busybox\nRUN --mount=from=files,target=/m cat /m/f > /seen"
    assert bench.listing(bench.build(text, plan))["seen"] == "644 0:0 1"
    (tmp_path / "named" / "f").write_text("2")
    assert bench.listing(bench.build(text, plan))["seen"] == "644 0:0 2"


def test_a_name_may_be_given_for_one_platform(bench: Bench, tmp_path: Path) -> None:
    for name in ("any", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    bench.contexts = {"base": Context.load(tmp_path / "any"), "base::linux/riscv64": Context.load(tmp_path / "other")}
    plan = replace(OPTIONS, contexts={name: NamedFiles() for name in bench.contexts})
    text = "FROM base\nCOPY --from=base f /g"
    assert bench.listing(bench.build(text, plan)) == {"f": "644 0:0 any", "g": "644 0:0 any"}
    foreign = replace(plan, platform=Platform("linux", "riscv64"))
    assert bench.listing(bench.build(text, foreign)) == {"f": "644 0:0 other", "g": "644 0:0 other"}
    mixed = bench.build("FROM --platform=linux/riscv64 base\nCOPY --from=base f /g", plan)
    assert bench.listing(mixed) == {"f": "644 0:0 other", "g": "644 0:0 any"}
