"""Measured side by side with the tools that people would use instead.

    python -m benchmarks                      everything (make bench)
    python -m benchmarks run-true --repeat 9  one benchmark
    python -m benchmarks --list               what there is

All contenders of a benchmark take turns within one run on one machine, after one round that
does not count; the table shows medians, and how many times longer than Tierce each took.
Results, every single time and the facts of the machine go to .cache/benchmarks/ as JSON.

Daemons are started privately (see ``tests.support``), and what they make of the host's network is taken
back, also after Ctrl-C or SIGTERM; after a kill, by the next run (``scratch``).
"""
