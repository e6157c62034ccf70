"""``tierce-runtime``: an OCI runtime on the command line, for bundles in the foreground.

An honest subset of runc's interface: ``run``, ``spec`` and ``features``. Every other verb is
refused by name, because half a lifecycle would mislead an engine.

Arguments are read by hand: an argument parser's import costs as much as a container.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from image.errors import InvalidInput, TierceError
from image.value import dataclass

if TYPE_CHECKING:
    from runner.runtime.spec import Spec

_USAGE: Final = """\
usage: tierce-runtime [--root DIR] [--debug] run [-b BUNDLE] [--pid-file FILE] ID
       tierce-runtime spec [-b BUNDLE]
       tierce-runtime features
       tierce-runtime --version

run       start the container of a bundle and wait for its end
spec      write a config.json to start from
features  say what this runtime can do, as JSON

options of run:
  -b, --bundle DIR   the bundle, by default the current directory
  --pid-file FILE    write the container's pid here
options for all:
  --root DIR         where the state of running containers is kept
  --debug            print every step of the start
"""
_ELSEWHERE: Final = frozenset({
    "create", "start", "state", "kill", "delete", "exec", "list", "ps", "pause", "resume", "update", "events",
    "checkpoint", "restore",
})  # fmt: skip
_RUNTIME_FAILED: Final = 1
_WITH_VALUE: Final = {"-b": "bundle", "--bundle": "bundle", "--root": "root", "--pid-file": "pid_file"}
_FLAGS: Final = {"--debug": "debug", "-h": "help", "--help": "help", "-v": "version", "--version": "version"}


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line, read."""

    verb: str = ""
    operands: tuple[str, ...] = ()
    bundle: str = "."
    root: str = ""
    pid_file: str = ""
    debug: bool = False
    help: bool = False
    version: bool = False


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Options anywhere, then a verb and its operands. Raises InvalidInput."""
    found: dict[str, str | bool] = {}
    operands: list[str] = []
    waiting = iter(words)
    for word in waiting:
        name, separator, value = word.partition("=")
        if name in _WITH_VALUE:
            given = value if separator else next(waiting, None)
            if given is None:
                raise InvalidInput(f"{name} needs a value")
            found[_WITH_VALUE[name]] = given
        elif word in _FLAGS:
            found[_FLAGS[word]] = True
        elif word.startswith("-"):
            raise InvalidInput(f"option {name} is not supported (see --help)")
        else:
            operands.append(word)
    arguments = Arguments(verb=operands[0] if operands else "", operands=tuple(operands[1:]))
    return replace(arguments, **found)  # type: ignore[arg-type]  # the tables above name the fields


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script: exits with the container's status, or 1 when the runtime failed."""
    try:
        status = _dispatch(parse_arguments(sys.argv[1:] if argv is None else argv))
    except TierceError as error:
        _say(sys.stderr.fileno(), f"tierce-runtime: {error}\n")
        status = _RUNTIME_FAILED
    sys.exit(status)


def _say(fd: int, text: str) -> None:
    os.write(fd, text.encode("utf-8", "surrogateescape"))


def _dispatch(arguments: Arguments) -> int:
    if arguments.version:
        return _version()
    if arguments.help or not arguments.verb:
        _say(1 if arguments.help else 2, _USAGE)
        return 0 if arguments.help else _RUNTIME_FAILED
    match arguments.verb:
        case "run":
            return _run(arguments)
        case "spec":
            return _spec(arguments)
        case "features":
            return _features()
        case verb if verb in _ELSEWHERE:
            raise InvalidInput(f"{verb} is not supported yet: this runtime runs bundles in the foreground only")
        case verb:
            raise InvalidInput(f"unknown command {verb!r} (see --help)")


def _version() -> int:
    from importlib.metadata import version

    from runner.runtime.spec import OCI_VERSION

    _say(1, f"tierce-runtime version {version('tierce')}\nspec: {OCI_VERSION}\n")
    return 0


def _run(arguments: Arguments) -> int:
    from contextlib import ExitStack

    from runner.containers.attach import Signals, UserStdio, window
    from runner.containers.relay import Relay
    from runner.containers.sweep import sweep
    from runner.runtime import state
    from runner.runtime.launch import Stdio, launch
    from runner.runtime.privileges import probe

    if len(arguments.operands) != 1:
        raise InvalidInput("run takes exactly one container id")
    container_id = state.check_id(arguments.operands[0])
    spec, rootfs = _read_bundle(Path(arguments.bundle))
    root = Path(arguments.root) if arguments.root else state.runtime_directory(os.environ, os.geteuid()) / "oci"
    privileges = probe()
    privileges.require()
    sweep(root, privileges.cgroups)
    with ExitStack() as held:
        lease = state.acquire(root, container_id)
        held.callback(lease.release)
        signals = held.enter_context(Signals())
        running = held.enter_context(
            launch(
                spec,
                rootfs,
                privileges=privileges,
                lease=lease,
                stdio=Stdio() if spec.process.terminal else Stdio(0, 1, 2),
                trace=(lambda operation: _say(2, f"+ {operation}\n")) if arguments.debug else None,
            )
        )
        for warning in running.warnings:
            _say(2, f"tierce-runtime: warning: {warning}\n")
        if arguments.pid_file:
            _write_pid(Path(arguments.pid_file), running.pid)
        signals.forward_to(running)
        relay = Relay()
        if running.console is not None:
            held.enter_context(window(running, UserStdio(), relay, interactive=True))
        relay.run(running, signals)
        return running.wait()


def _read_bundle(bundle: Path) -> tuple[Spec, Path]:
    from runner.runtime.config_json import decode_spec

    try:
        raw = (bundle / "config.json").read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {bundle / 'config.json'}: {os.strerror(error.errno or 0).lower()}") from error
    spec = decode_spec(raw)
    rootfs = bundle.absolute() / spec.root.path
    if not rootfs.is_dir():
        raise InvalidInput(f"cannot run {bundle}: its root filesystem {rootfs} is not a directory")
    mounts = tuple(
        replace(mount, source=str(bundle.absolute() / mount.source))
        if mount.type == "bind" and mount.source and not mount.source.startswith("/")
        else mount
        for mount in spec.mounts
    )
    return replace(spec, mounts=mounts), rootfs


def _write_pid(path: Path, pid: int) -> None:
    """Whoever waits for the file must never read half a number."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(str(pid))
        temporary.rename(path)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {os.strerror(error.errno or 0).lower()}") from error


def _spec(arguments: Arguments) -> int:
    from runner.runtime.config_json import encode_spec
    from runner.runtime.defaults import example_spec

    path = Path(arguments.bundle) / "config.json"
    try:
        with open(path, "xb") as file:
            file.write(encode_spec(example_spec()) + b"\n")
    except FileExistsError:
        raise InvalidInput(f"{path} exists: remove it first") from None
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {os.strerror(error.errno or 0).lower()}") from error
    return 0


def _features() -> int:
    import json

    from runner.runtime.features import features

    _say(1, json.dumps(features(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    main()
