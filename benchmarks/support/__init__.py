"""Modules that several benchmark programs share."""
