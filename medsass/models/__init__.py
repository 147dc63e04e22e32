"""Networks, their checkpoints and their exports."""
