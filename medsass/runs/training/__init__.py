"""`medsass train`."""
