"""SIGMA-GEN (ICLR 2026), from the published description: its program and weights are not public.

The construction of the paper is exact; what it leaves open (size of a cell, timestep and guidance of the condition
tokens, reach of the adapter) is a setting. No parity with the checkpoint of the authors is claimed.
"""
