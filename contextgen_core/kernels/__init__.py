"""Ways to compute attention that hand out more than its result, or compute less than all of it."""
