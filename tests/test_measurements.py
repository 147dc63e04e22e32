"""docs/measurements.md against benchmarks/results."""

from benchmarks import measurements


def test_tables_show_the_results() -> None:
    text = measurements.PAGE.read_text("utf-8")
    assert measurements.render(text) == text
