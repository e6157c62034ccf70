"""The graph as a drawing: Graphviz or Mermaid text, with what the cache holds. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from builder.graph import FromContext, FromImage, FromScratch, Graph, Step, inputs_first

Form = Literal["dot", "mermaid"]


def draw(graph: Graph, cached: Collection[str], form: Form) -> str:
    """``cached`` are the ids of steps whose results are at hand; they are drawn green."""
    steps = list(inputs_first(graph.target))
    names = {step.id: f"s{number}" for number, step in enumerate(steps)}
    edges = [(names[source.id], names[step.id], source is step.base) for step in steps for source in step.inputs]
    return _dot(steps, names, edges, cached) if form == "dot" else _mermaid(steps, names, edges, cached)


def _dot(steps: list[Step], names: dict[str, str], edges: list[tuple[str, str, bool]], cached: Collection[str]) -> str:
    lines = ["digraph build {", '  rankdir="LR"; node [shape=box, style="rounded,filled", fillcolor=white];']
    for step in steps:
        colour = ", fillcolor=palegreen" if step.id in cached else ""
        label = step.name.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'  {names[step.id]} [label="{label}"{colour}];')
    lines += [f"  {a} -> {b}{'' if is_base else ' [style=dashed]'};" for a, b, is_base in edges]
    return "\n".join([*lines, "}"])


def _mermaid(
    steps: list[Step], names: dict[str, str], edges: list[tuple[str, str, bool]], cached: Collection[str]
) -> str:
    lines = ["flowchart LR"]
    for step in steps:
        label = step.name.replace('"', "#quot;")
        box = f'(["{label}"])' if isinstance(step.operation, FromImage | FromScratch | FromContext) else f'["{label}"]'
        lines.append(f"  {names[step.id]}{box}")
    lines += [f"  {a} {'-->' if is_base else '-.->'} {b}" for a, b, is_base in edges]
    hit = [names[step.id] for step in steps if step.id in cached]
    if hit:
        lines += [f"  class {','.join(hit)} cached", "  classDef cached fill:#cfc"]
    return "\n".join(lines)
