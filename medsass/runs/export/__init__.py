"""`medsass export`: weights for other libraries and a model card."""
