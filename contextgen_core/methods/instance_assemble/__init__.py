"""InstanceAssemble (NeurIPS 2025, arXiv 2509.16691): a phrase for each box, by an extra step after some blocks."""
