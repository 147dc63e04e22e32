"""Photographic formats, and whether their bytes are whole."""
