"""`medsass shard`: a source folder -> a shard folder."""
