"""Writes the golden files anew; read the difference before you commit it.

python -m tests.builder.golden.regenerate
"""

from __future__ import annotations

from pathlib import Path

from tests.support.dockerfile_text import rejected, understood

HERE = Path(__file__).parent


def main() -> None:
    """Every ``*.Dockerfile`` gets a ``*.txt`` beside it."""
    for path in sorted(HERE.glob("*/*.Dockerfile")):
        render = understood if path.parent.name == "positive" else rejected
        path.with_suffix(".txt").write_text(render(path.read_bytes()), encoding="utf-8")


if __name__ == "__main__":
    main()
