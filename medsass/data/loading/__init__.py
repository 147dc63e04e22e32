"""Shards -> augmented device batches."""
