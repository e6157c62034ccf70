"""``python -m benchmarks``: set up, measure, show, keep. See the package's docstring."""

from __future__ import annotations

import argparse
import os
import sys
import time

from benchmarks import builds, caches, containers, machine, mirrors, rootless, runs, transfers
from benchmarks.measure import Outcome, measure
from benchmarks.peers import bench
from benchmarks.report import table, write_json
from fixtures.cache import PROJECT

BENCHMARKS = {
    "start-up": runs.start_up,
    "run-true": runs.run_true,
    "run-bridge": containers.run_bridge,
    "run-detached": containers.run_detached,
    "run-kept": containers.run_watched,
    "run-many": containers.run_many,
    "exec": containers.exec_true,
    "output": containers.output,
    "logs": containers.logs,
    "ps": containers.ps,
    "ps-many": containers.ps_many,
    "rootless": rootless.run_true,
    "rootless-network": rootless.run_with_a_network,
    "runtime-run": runs.runtime_run,
    "runtime-exec": runs.runtime_exec,
    "cached-rebuild": builds.cached_rebuild,
    "cached-large": builds.cached_rebuild_large,
    "ten-steps": builds.ten_steps,
    "cold-build": builds.cold_build,
    "isolations": builds.isolations,
    "project-cold": builds.project_cold,
    "project-fresh": builds.project_fresh,
    "project-unchanged": builds.project_unchanged,
    "project-one-file": builds.project_one_file,
    "cache-export": caches.export_unchanged,
    "cache-import": caches.import_into_nothing,
    "push": transfers.push,
    "pull": transfers.pull,
    "copy": transfers.copy,
    "copy-again": transfers.copy_again,
    "copy-large": transfers.copy_large,
    "download-large": transfers.download_large,
    "sync": mirrors.sync,
    "sync-again": mirrors.sync_again,
}
MEMORY = "memory"
"""What running containers take, which is no time: it is shown, and not kept with the figures."""


def main() -> None:
    """Measure what the arguments name, or all."""
    options = _arguments()
    if options.list:
        print(
            "\n".join(f"{name:<16} {make.__doc__.splitlines()[0]}" for name, make in BENCHMARKS.items() if make.__doc__)
        )
        return
    if os.geteuid() != 0:
        sys.exit("benchmarks start private daemons and containers: run them as root")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed programs run; a container image may set it
    facts = machine.facts()
    print("\n".join(f"{name:<10} {value}" for name, value in facts.items()))
    results: dict[str, list[Outcome]] = {}
    with bench() as tools:
        for name in options.names or [*BENCHMARKS, MEMORY]:
            if name == MEMORY:
                print(f"\n{containers.residents(tools)}", flush=True)
                continue
            benchmark = BENCHMARKS[name](tools)
            results[name] = measure(benchmark, repeat=options.repeat) if benchmark.contenders else []
            print(f"\n{table(benchmark, results[name])}", flush=True)
    path = PROJECT / ".cache" / "benchmarks" / f"{time.strftime('%Y%m%dT%H%M%S')}.json"
    write_json(path, facts, results)
    print(f"\n{path.relative_to(PROJECT)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Tierce beside its peers.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", choices=[*BENCHMARKS, MEMORY, []], help="what to measure (all)"
    )
    parser.add_argument("--repeat", type=int, default=5, help="rounds that count (5)")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and end")
    return parser.parse_args()


if __name__ == "__main__":
    main()
