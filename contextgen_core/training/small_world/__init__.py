"""The drawn world: its scenes, models and evaluation."""
