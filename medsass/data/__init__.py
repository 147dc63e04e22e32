"""Files -> shards -> device batches."""
