"""Scores of a trained run: `medsass evaluate` and `medsass probe`."""
