"""References and how they are placed, ordered and pasted into one picture."""
