"""What one training step computes from one batch."""
