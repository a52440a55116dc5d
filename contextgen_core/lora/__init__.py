"""Adapter files: read, check, normalise, write."""
