"""Markdown tables of results, for docs/measurements.md."""

from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]


def measured(name: str, content: Result) -> str:
    """Return where and when a result was measured, as a link to its file."""
    return f"[{content['device']}, {content['date']}](../benchmarks/results/{name})"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, the first column aligned left and the others right."""
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, rule, *rows])
