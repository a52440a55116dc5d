"""SIGMA-GEN (ICLR 2026), from the published description: its program and weights are not public.

The paper's construction is exact; what it leaves open (cell size, timestep and guidance of the condition tokens, reach of
the adapter) is a setting. No parity with the authors' checkpoint is claimed.
"""
