"""Tables for README, of results."""

from typing import Any

Result = dict[str, Any]


def measured(name: str, content: Result) -> str:
    """Where and when a result was measured, as a link to its file."""
    return f"[{content['device']}, {content['date']}](benchmarks/results/{name})"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, first column to the left and the others to the right."""
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, rule, *rows])
