"""The method on the hosts that the core knows itself. ComfyUI's lies in ``nodes/host.py``."""
