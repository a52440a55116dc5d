"""Figures of how well pictures follow their layout, and files of results."""
