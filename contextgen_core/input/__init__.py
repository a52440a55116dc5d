"""Checks of numbers, text and JSON from outside."""
