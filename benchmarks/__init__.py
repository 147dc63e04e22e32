"""Programs that time or score the project."""
