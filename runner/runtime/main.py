"""``tierce-runtime``: an OCI runtime with runc's command line.

A small dispatcher; the verbs are in ``verbs``, one file each, imported when called.
"""

from __future__ import annotations

import os
import sys

from image.errors import CommandNotStarted, InvalidInput, TierceError
from runner.runtime.arguments import Options, parse_arguments
from runner.runtime.call import Call, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, NoReturn

_USAGE: Final = """\
usage: tierce-runtime [OPTIONS] VERB [OPTIONS] [ID] [ARGUMENTS]

create ID    make the container of a bundle, up to its program
start ID     let it execute its program
run ID       create and start, and wait for the end (-d does not wait)
exec ID CMD  one more process in a container that runs
kill ID SIG  a signal for pid 1, or with -a for every process
delete ID    remove what is left of a container (-f ends it first)
state ID     what it is, as JSON
list         all containers
ps ID        its processes
pause ID     stop its processes where they are
resume ID    let them go on
update ID    other limits
events ID    what it uses, and when it runs out of memory (--stats once)
spec         write a config.json to start from
features     say what this runtime can do, as JSON

options for all:
  --root DIR               where the state of containers is kept
  --log FILE               write errors there too, in --log-format text or json
  --debug                  print every step of a start
  --cgroup-manager cgroupfs
docs/runtime.md has the rest
"""
_RUNTIME_FAILED: Final = 1
_EXEC_FAILED: Final = 255
_NOT_EXECUTABLE: Final = 126


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script: exits with the container's status, 1 when the runtime failed, 255 when exec did."""
    words = sys.argv[1:] if argv is None else argv
    verb, common = "", Options({})
    try:
        arguments = parse_arguments(words)
        verb, common = arguments.verb, arguments.common
        if verb and not common.flag("help") and not common.flag("version"):
            _check(common)
            call = Call(arguments, lambda text: _log(common, "warning", text))
            status = __import__(f"runner.runtime.verbs.{verb}", fromlist=("run",)).run(call)
        else:
            status = _explain(common)
    except TierceError as error:
        _log(common, "error", _as_engines_read(error))
        status = _EXEC_FAILED if verb == "exec" else _RUNTIME_FAILED
    except BrokenPipeError:
        status = _RUNTIME_FAILED
    os._exit(status)  # nothing is buffered, and taking the modules apart takes as long as a container


def _explain(common: Options) -> int:
    if common.flag("version"):
        from importlib.metadata import version

        from runner.runtime.spec import OCI_VERSION

        say(1, f"tierce-runtime version {version('tierce')}\ncommit: {version('tierce')}\nspec: {OCI_VERSION}\n")
        return 0
    say(1 if common.flag("help") else 2, _USAGE)
    return 0 if common.flag("help") else _RUNTIME_FAILED


def _check(common: Options) -> None:
    if common.flag("systemd-cgroup") or common.text("cgroup-manager") == "systemd":
        raise InvalidInput("systemd's control groups are not supported: use the cgroupfs driver")
    if common.text("log-format", "text") not in ("text", "json"):
        raise InvalidInput(f"--log-format {common.text('log-format')!r} is not text or json")
    if common.text("rootless", "auto") not in ("auto", "true", "false"):
        raise InvalidInput(f"--rootless {common.text('rootless')!r} is not auto, true or false")


def _as_engines_read(error: TierceError) -> str:
    """Docker and podman take exit code 126 from these words, where newer kernels' errors have others."""
    text = str(error)
    cannot = isinstance(error, CommandNotStarted) and error.status == _NOT_EXECUTABLE
    return f"{text}: permission denied" if cannot and "permission denied" not in text else text


def _log(common: Options, level: str, text: str) -> None:
    """To the user, and to the file where an engine looks for it."""
    prefix = "" if level == "error" else f"{level}: "
    say(2, f"tierce-runtime: {prefix}{text}\n")
    path = common.text("log")
    if not path:
        return
    import json
    import time

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if common.text("log-format") == "json":
        line = json.dumps({"level": level, "msg": text, "time": now})
    else:
        line = f'time="{now}" level={level} msg={json.dumps(text)}'
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        say(2, f"tierce-runtime: cannot write {path}: {os.strerror(error.errno or 0).lower()}\n")


if __name__ == "__main__":
    main()
