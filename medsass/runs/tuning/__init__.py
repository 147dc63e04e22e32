"""`medsass tune`: choosing labels without ground truth."""
