"""What ``python -m`` runs."""
