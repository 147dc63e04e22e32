"""What several benchmark programs use."""
