"""Training methods: each computes a loss from a batch of images."""
