"""Many pictures from a table: prepared, made, scored, kept and written on Ray Data.

    python -m contextgen_core.bulk generate TABLE --workflow API.json --comfy-path ~/comfy/ComfyUI --out FOLDER

An extra of the pack (``pip install .[bulk]``): nothing else imports it, and without Ray it says so in one sentence.
"""
