"""Worker processes that read, encode and check, so that no file can end the run."""
