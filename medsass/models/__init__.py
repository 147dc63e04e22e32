"""Networks, and how they are stored."""
