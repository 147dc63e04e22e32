"""Image and mask files -> pixels."""
