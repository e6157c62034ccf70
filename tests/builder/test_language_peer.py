"""The Dockerfile language against a real docker: words, ignore files, COPY's sources."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.context import Context
from builder.dockerfile.expand import Environment, expanded
from builder.dockerfile.instructions import Env
from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse
from builder.entries import EntryKind
from builder.tree import Tree
from tests.support.dockerd import Docker, dockerd

pytestmark = [pytest.mark.peer, pytest.mark.root]


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with dockerd(tmp_path_factory.mktemp("docker") / "d") as client:
        yield client


WORDS = [
    "$A", "${A}", "x$A.y", "$A$A", "$UNSET", "${UNSET}x", "$1", "$12x", "$@x", "$.", "a$", "$/", "'$A'", '"$A"',
    "'\"'", "\"'\"", r"\$A", r"\\$A", r"a\ b", r"\n", r'"\n"', r'"\$A\""', "''", '""', "a''b", "a'b c'd", "$B",
    '"$B"', "${A:-d}", "${E:-d}", "${U:-d}", "${A:+d}", "${E:+d}", "${U:+d}", "${U:-$A}", "${U:-${V:-$A}}",
    '${U:-"x y"}', r"${U:-\}}", "${U:-'}'}", "a=b=c", "$A=$A", "café$A", "~/x", "#x", "a#b", "`x`", "a;b|c",
]  # fmt: skip


def test_words(docker: Docker, tmp_path: Path) -> None:
    lines = ["FROM scratch", "ENV A=alpha E=", 'ENV B="two  words"']
    lines += [f"ENV V{number}={word}" for number, word in enumerate(WORDS)]
    lines += [r"ENV L1 rest 'of' $A the \ line", "ENV L2   $B", r"ENV M1=a\ b M2='c d' M3=$M1", "ENV T=x\\", "y"]
    text = "\n".join(lines) + "\n"
    (tmp_path / "Dockerfile").write_text(text, encoding="utf-8")
    docker.build("words", tmp_path)
    config = json.loads(docker("inspect", "words"))[0]["Config"]
    theirs = dict(item.split("=", 1) for item in config["Env"])
    ours = {"PATH": theirs["PATH"]}
    for instruction in instructions(parse(text.encode(), "Dockerfile")):
        pairs = expanded(instruction, Environment(dict(ours)))
        if isinstance(pairs, Env):
            ours.update(pairs.pairs)
    assert ours == theirs


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for name in (
        "top.go", "top.c", "README.md", ".hidden", "a/x.go", "a/x.c", "a/b/y.go", "a/b/y.c", "a/b/c/z.go",
        "node_modules/p/i.js", "src/node_modules/q/i.js", "docs/README.md", "docs/[1].md", "docs/x*.md", "é/ü.md",
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "empty").mkdir()
    (root / "link").symlink_to("a/b")
    (root / "docs/top").symlink_to("../top.go")
    (root / "dangling").symlink_to("nowhere")
    return root


def exported(docker: Docker, context: Path, dockerfile: str, out: Path) -> set[str]:
    """The paths of the image that ``dockerfile`` makes."""
    (out.parent / "Dockerfile").write_text(dockerfile)
    docker("build", "--quiet", "--file", out.parent / "Dockerfile", "--output", f"type=local,dest={out}", context)
    return {str(path.relative_to(out)) for path in out.rglob("*")}


# Two things that docker 20.10 does otherwise than later ones are left out: it never looks into an
# excluded directory for "!**/x", and "**.md" does not match "d/x.md".
IGNORE_FILES = {
    "names": "a\nREADME.md\n",
    "stars": "*.go\n*/*.c\n",
    "double-stars": "**/*.go\n**/node_modules\n",
    "double-star-inside": "a/**/*.c\na/**/z.go\n",
    "everything-but": "*\n!*.go\n!docs\n",
    "re-included-below": "a\n!a/b/c\n!docs/nothing\n",
    "last-wins": "a\n!a/b\na/b/c\n",
    "classes": "docs/[[]1].md\n[r-z]*\n",
    "escapes": "docs/x\\*.md\n\\.hidden\n",
    "cleaned": "/a/./b/../x.go\n  docs/  \n# a\n #b\n",
    "comment-and-blank": "#*\n\n\n!x\n.hidden",
    "all": "*\n",
}


@pytest.mark.parametrize("name", IGNORE_FILES)
def test_ignore_files(docker: Docker, context: Path, tmp_path: Path, name: str) -> None:
    (context / ".dockerignore").write_text(IGNORE_FILES[name])
    theirs = exported(docker, context, "FROM scratch\nCOPY . /\n", tmp_path / "out")
    with Context.load(context).open() as tree:
        ours = {entry.path for entry in tree.walk()} - {""}
    assert ours == theirs


PATTERNS = ["a", "a/", ".", "./a/../docs", "../../a", "*.go", "a/*", "*/x.go", "?op.c", "d*s", "link", "link/*", "docs/top",
            "docs/[[]1].md", "docs/x\\*.md", "nothing*", "top.go/", "*/*/*.go", "l?nk", "[a-d]*/*.md", "é/*", "li*"]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_sources_of_copy(docker: Docker, context: Path, tmp_path: Path, pattern: str) -> None:
    theirs = exported(docker, context, f"FROM scratch\nCOPY empty {pattern} /dest/\n", tmp_path / "out") - {"dest"}
    with Context.load(context).open() as tree:
        ours = {f"dest/{path}" for path in _copied(tree, pattern)}
    assert ours == theirs


def _copied(tree: Tree, pattern: str) -> Iterator[str]:
    """What a COPY into a directory makes there: a directory's contents, a file under its name."""
    for source in tree.sources(pattern):
        if source.kind is not EntryKind.DIRECTORY:
            yield source.name
            continue
        for entry in tree.walk(source.path):
            relative = entry.path[len(source.path) :].lstrip("/")
            if relative:
                yield relative


@pytest.mark.parametrize("source", ["missing", "a/missing", "dangling", "dang*", "top.go/x"])
def test_missing_sources(docker: Docker, context: Path, tmp_path: Path, source: str) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nCOPY {source} /dest\n")
    assert docker.exit_code("build", "--quiet", "--file", tmp_path / "Dockerfile", context) != 0
    with Context.load(context).open() as tree, pytest.raises(Exception, match="not found"):
        tree.sources(source)
