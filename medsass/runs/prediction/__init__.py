"""`medsass predict`."""
