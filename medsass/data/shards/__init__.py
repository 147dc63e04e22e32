"""A shard folder: tar files with their index, checksums and manifest."""
