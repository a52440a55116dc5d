"""Training sets made from nothing but words: planned, painted, cut out, painted anew, judged and packed on Ray Data.

    python -m contextgen_core.bulk synthesize contextgen --out FOLDER --count 1000

makes the three tiers of ContextGen's IMIG-100K, `synthesize sigma_gen` a set like SIGMA-GEN's, in shards that
`contextgen_core.training` reads. Every model is pluggable (:mod:`models`); without any the drawn world of
`contextgen_core.training.small_world` takes their places. Sources: ContextGen (arXiv 2510.11000), section on its data;
SIGMA-GEN (arXiv 2510.06469), section on SIGMA-SET.
"""
