"""Every benchmark but `paper` and `beyond`, which take hours, one after the other, then README's tables: what `make gpu` runs."""

import runpy

BENCHMARKS = (
    "line",
    "shard",
    "polarity",
    "tune",
    "labels",
    "train",
    "loader",
    "scaling",
)  # loader reads what train wrote


def main() -> None:
    """Run them all; the first that fails ends the run."""
    for name in BENCHMARKS:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    runpy.run_module("benchmarks.readme", run_name="__main__")


if __name__ == "__main__":
    main()
