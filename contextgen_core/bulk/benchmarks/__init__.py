"""Published benchmarks as rows: the user's download becomes a table, the pictures come from a bulk run, and the
benchmark's protocol judges them.

    python -m contextgen_core.bulk benchmark coco-mig --data DIR --workflow API.json --comfy-path DIR --out FOLDER

Nothing of a data set or of its code is part of the pack; docs/benchmarks.md says what each one needs and how each
figure is defined.
"""
