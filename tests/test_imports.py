"""The floors of the house: imports run downward only, with no list of exceptions."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "image": frozenset[str](),
    "store": frozenset({"image"}),
    "builder": frozenset({"image", "store"}),
    "transfer": frozenset({"image", "store"}),
    "runner": frozenset({"image", "store"}),
    "tierce": frozenset({"image", "store", "builder", "transfer", "runner"}),
}
MODULES = sorted(path for package in FLOORS for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level packages that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    upward = (imported(path) & FLOORS.keys()) - FLOORS[package] - {package}
    assert not upward, f"{package} must not import {', '.join(sorted(upward))}"


@pytest.mark.parametrize("path", sorted((ROOT / "image").rglob("*.py")), ids=lambda path: path.name)
def test_the_image_model_needs_the_standard_library_only(path: Path) -> None:
    assert imported(path) <= sys.stdlib_module_names | {"image"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_kernel_calls_touch_ctypes(path: Path) -> None:
    if path.parent != ROOT / "store" / "linux":
        assert not imported(path) & {"ctypes", "_ctypes"}
