"""The front door: start-up, exit codes, interrupts, pipes, help."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from image.config import ContainerConfig
from tests.support.cli import Tierce
from tests.tierce.conftest import Stock
from tierce import VERSION
from tierce.cli.clicked import ClickCommand, spell_out_flags
from tierce.cli.commands import COMMANDS
from tierce.cli.declare import Entry, Group

Invoke = Callable[..., tuple[int, str, str]]
PROJECT = Path(__file__).resolve().parents[3]


def _all_commands(group: Group = COMMANDS, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Entry]]:
    for name, entry in group.entries.items():
        if isinstance(entry, Group):
            yield from _all_commands(entry, (*path, name))
        else:
            yield " ".join((*path, name)), entry


ALL = list(_all_commands())


def _imported(*argv: str) -> set[str]:
    """The modules that a start of tierce imports."""
    program = [sys.executable, "-X", "importtime", "-m", "tierce", *argv]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=PROJECT)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("argv", [("--version",), ("--help",), ("image", "--help"), ("nonsense",)])
def test_a_start_imports_no_command(argv: tuple[str, ...]) -> None:
    imported = _imported(*argv)
    ours = {name for name in imported if name.startswith(("tierce", "image", "store", "builder", "transfer", "runner"))}
    front = {"main", "commands", "command", "declare", "quick", "clicked", "less_inspect", "output"}
    mistake = {"failures", "click_failures", "refused", "terminal"} if argv == ("nonsense",) else set()
    allowed = {"tierce", "tierce.cli", "image", "image.bare", "image.errors", "image.paths", "image.value"}
    assert ours <= allowed | {f"tierce.cli.{name}" for name in front | mistake}
    assert not imported & {
        "json",
        "sqlite3",
        "dataclasses",
        "asyncio",
        "http.client",
        "lark",
        "subprocess",
        "traceback",
    }


@pytest.mark.parametrize(
    ("argv", "never"),
    [
        (
            ("images",),
            {"lark", "http.client", "cryptography", "pyroute2", "builder.plan", "runner.runtime.spec", "asyncio"},
        ),
        (("run", "--help"), {"lark", "http.client", "pyroute2", "builder.plan"}),
        (("rmi", "absent"), {"lark", "http.client", "pyroute2"}),
    ],
    ids=["images", "run", "rmi"],
)
def test_a_command_imports_only_what_it_needs(argv: tuple[str, ...], never: set[str], tmp_path: Path) -> None:
    assert not _imported("--root", str(tmp_path / "root"), *argv) & never


def test_version() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    done = subprocess.run([sys.executable, "-m", "tierce", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tierce version {VERSION}\n"


@pytest.mark.parametrize(("path", "entry"), ALL, ids=[path for path, _ in ALL])
def test_every_command_loads_and_says_what_the_list_says(path: str, entry: Entry) -> None:
    found = ClickCommand(entry.load())
    assert found.get_short_help_str(limit=200) == entry.summary
    assert found.examples or path == "help"


@pytest.mark.parametrize(("path", "entry"), ALL, ids=[path for path, _ in ALL])
def test_examples_are_valid_command_lines(path: str, entry: Entry) -> None:
    """Each flag that an example uses exists."""
    found = ClickCommand(entry.load())
    known = {name for param in found.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
    for line in found.examples.strip().splitlines():
        own = re.split(r"[#|]|\$\(", line.partition("tierce ")[2])[0]
        for flag in re.findall(r"(?<=\s)--[a-z0-9-]+", own):
            assert flag in known, f"{line}: {flag}"


def test_aliases_are_the_same_command() -> None:
    image, top = COMMANDS.entries["image"], COMMANDS.entries
    assert isinstance(image, Group)
    for short, long in [("images", "ls"), ("rmi", "rm"), ("tag", "tag"), ("inspect", "inspect"), ("load", "load")]:
        assert top[short] is image.entries[long]


def test_help_lists_sections_and_examples(invoke: Invoke) -> None:
    code, out, _ = invoke("--help")
    assert code == 0
    assert "Management commands:\n" in out
    assert "  rmi         Remove one or more images\n" in out
    assert out.endswith("EXAMPLES:\n" + "".join(f"  {line}\n" for line in COMMANDS.examples.strip().splitlines()))


@pytest.mark.parametrize("argv", [("help", "image", "rm"), ("image", "rm", "--help"), ("help", "rmi")])
def test_help_of_a_command(argv: tuple[str, ...], invoke: Invoke) -> None:
    code, out, _ = invoke(*argv)
    assert code == 0
    assert "IMAGE [IMAGE...]" in out
    assert "EXAMPLES:" in out


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (("imag",), 1, "unknown command: tierce imag; did you mean tierce image?"),
        (("image", "lss"), 1, "unknown command: tierce image lss; did you mean tierce image ls?"),
        (("images", "--fromat", "x"), 125, "unknown flag: --fromat; did you mean --format?"),
        (("rmi",), 1, "missing argument 'IMAGE [IMAGE...]'"),
        (("tag", "a"), 1, "missing argument 'TARGET_IMAGE[:TAG]'"),
        (("tag", "a", "b", "c"), 1, "got unexpected extra argument (c)"),
        (("images", "--filter"), 125, "option '--filter' requires an argument"),
        (("images", "--filter", "nope=1"), 1, "filter 'nope' is not known"),
        (("images", "--filter", "nope"), 125, "filter 'nope' is not KEY=VALUE"),
        (("--nope", "images"), 125, "unknown flag: --nope"),
        (("run", "--nope", "image"), 125, "unknown flag: --nope"),
        (("help", "nope"), 1, "unknown help topic: nope"),
        (("inspect", "absent"), 1, "no such image: absent"),
        (("tag", "absent", "x"), 1, "no such image: absent"),
        (("tag", "absent", "UPPER"), 1, "invalid repository name 'library/UPPER'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_are_one_line_with_dockers_code(argv: tuple[str, ...], code: int, error: str, invoke: Invoke) -> None:
    found, _, err = invoke(*argv)
    assert found == code
    assert err.startswith(f"tierce: {error}")
    assert "Traceback" not in err


def test_a_command_without_words_shows_help(invoke: Invoke) -> None:
    code, out, err = invoke("system")
    assert (code, err) == (0, "")
    assert "Verify every byte" in out


def test_debug_shows_traceback_and_facts(invoke: Invoke) -> None:
    code, _, err = invoke("--debug", "inspect", "absent")
    assert code == 1
    code, _, err = invoke("--debug", "tag", "absent", "x")
    assert "Traceback" in err
    assert err.endswith("tierce: no such image: absent\n")


def test_an_unusable_root_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = Tierce(tmp_path / "file").attempt("images")
    assert done.code == 1
    assert done.stderr.startswith("tierce: open the store")
    assert done.stderr.count("\n") == 1


def test_a_damaged_database_is_one_line(tmp_path: Path, tierce: Tierce) -> None:
    tierce("images")
    (tierce.root / "metadata.db").write_bytes(b"not a database" * 100)
    done = tierce.attempt("images")
    assert done.code == 1
    assert "is the root a Tierce store, and yours?" in done.stderr
    assert "Traceback" not in done.stderr


def test_root_comes_from_flag_then_environment(tmp_path: Path) -> None:
    environment = os.environ | {"TIERCE_ROOT": str(tmp_path / "from-env")}
    subprocess.run([sys.executable, "-m", "tierce", "images"], env=environment, check=True, capture_output=True)
    assert (tmp_path / "from-env" / "oci-layout").exists()
    argv = [sys.executable, "-m", "tierce", "--root", str(tmp_path / "from-flag"), "images"]
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    assert (tmp_path / "from-flag" / "oci-layout").exists()


def test_a_reader_that_leaves_is_no_error(tierce: Tierce) -> None:
    """``tierce images | true``: whatever the moment, nothing is said."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(tierce.argv("images"), stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 128 + signal.SIGPIPE


def test_a_reader_of_an_archive_that_leaves_is_no_error(stock: Stock, tierce: Tierce) -> None:
    stock.add("app", content="x" * 1_000_000)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(tierce.argv("save", "app"), stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_output_that_cannot_be_written_is_an_error(tierce: Tierce) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(tierce.argv("images"), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "tierce: write: no space left on device: free some space\n"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_do_no_harm(closed: str, stock: Stock, tierce: Tierce) -> None:
    stock.add("app")
    script = f'exec {closed}; exec "$@"'
    for command in (("images",), ("inspect", "absent"), ("tag", "app", "other")):
        done = subprocess.run(["sh", "-c", script, "sh", *tierce.argv(*command)], capture_output=True, check=False)
        assert done.returncode == (1 if command[0] == "inspect" else 0)
        assert b"Traceback" not in done.stderr
    assert tierce("system", "check", "-q").code == 0
    assert (tierce.root / "metadata.db").read_bytes().startswith(b"SQLite format 3")


def test_a_terminal_that_has_no_such_character(stock: Stock, tierce: Tierce) -> None:
    stock.add("app", config=ContainerConfig(labels={"name": "名"}))
    environment = tierce.env() | {"PYTHONIOENCODING": "latin-1"}
    argv = tierce.argv("inspect", "-f", "{{.Config.Labels.name}}", "app")
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "\\u540d\n"
    absent = subprocess.run(
        tierce.argv("inspect", os.fsdecode(b"\xff")), capture_output=True, check=False, env=environment
    )
    assert absent.returncode == 1
    assert b"Traceback" not in absent.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_interrupts_clean_up_and_are_quiet(number: int, code: int, tierce: Tierce) -> None:
    """An import that waits for its tar: its session and its half-written blob go away."""
    process = tierce.start("import", "-", "half")
    assert process.stdin is not None
    process.stdin.write("x" * 600)
    process.stdin.flush()
    ingest = tierce.root / "ingest"
    deadline = time.monotonic() + 20
    while not (ingest.exists() and list(ingest.iterdir())):
        assert time.monotonic() < deadline, "the import did not begin"
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (code, "")
    assert list(ingest.iterdir()) == []
    assert list((tierce.root / "leases").iterdir()) == []


def test_prune_asks_and_takes_no_for_an_answer(tierce: Tierce) -> None:
    done = tierce.attempt("system", "prune", stdin="n\n")
    assert done.code == 1
    assert "WARNING! This will remove:\n  - all stopped containers\n" in done.stdout
    assert "  - all dangling images\n" in done.stdout
    assert done.stderr == "tierce: system prune has been cancelled\n"
    assert tierce("system", "prune", stdin="y\n").stdout.endswith("Total reclaimed space: 0B\n")


def test_save_refuses_a_terminal(tierce: Tierce) -> None:
    leader, follower = pty.openpty()
    done = subprocess.run(tierce.argv("save", "x"), stdout=follower, stderr=subprocess.PIPE, text=True, check=False)
    os.close(leader)
    os.close(follower)
    assert done.returncode == 1
    assert "cowardly refusing to save to a terminal" in done.stderr


@click.command("sample", context_settings={"allow_interspersed_args": False})
@click.option("--rm", is_flag=True)
@click.option("--sig-proxy/--no-sig-proxy", default=True)
@click.option("--pull", is_flag=True)
@click.option("--pull-never", is_flag=True)
@click.option("-i", "inter", is_flag=True)
@click.option("-e", "--env", "env", multiple=True)
@click.argument("rest", nargs=-1)
def _sample(**_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("--rm=true x", "--rm x"),
        ("--rm=false x", "x"),
        ("--rm=maybe x", "--rm=maybe x"),
        ("--sig-proxy=false x", "--no-sig-proxy x"),
        ("--env --rm=true x", "--env --rm=true x"),
        ("-e --rm=true x", "-e --rm=true x"),
        ("-ie --rm=true x", "-ie --rm=true x"),
        ("-eA --rm=true x", "-eA --rm x"),
        ("-e=A=B --rm=true x", "-e A=B --rm x"),
        ("--pull=never --pull=maybe x", "--pull-never --pull=maybe x"),
        ("x --rm=true", "x --rm=true"),
        ("-- --rm=true", "-- --rm=true"),
        ("-e", "-e"),
    ],
)
def test_flags_with_go_booleans(written: str, spelled: str) -> None:
    _sample.allow_interspersed_args = False
    assert spell_out_flags(_sample, written.split()) == spelled.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, invoke: Invoke) -> None:
    code, out, _ = invoke("completion", shell)
    assert code == 0
    assert "_TIERCE_COMPLETE" in out


def test_completion_knows_commands_and_images(stock: Stock, tierce: Tierce) -> None:
    stock.add("hello", "help:me")

    def complete(*words: str) -> list[str]:
        environment = tierce.env() | {
            "_TIERCE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1),
            "TIERCE_ROOT": str(tierce.root),
        }  # fmt: skip
        argv = [sys.executable, "-m", "tierce"]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("tierce", "sys") == ["system"]
    assert complete("tierce", "rmi", "hel") == ["hello:latest", "help:me"]
    assert "--digests" in complete("tierce", "images", "--d")
