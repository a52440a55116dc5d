"""Cutting a subject out of a photograph."""
