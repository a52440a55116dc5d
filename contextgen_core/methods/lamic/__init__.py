"""LAMIC (arXiv 2508.00477): several references in one picture by attention masks alone, without any training.

Every reference comes with a phrase and a region. All references share one position slot, and only a table of who sees
whom tells them apart: a strict one in the first steps (:mod:`.visibility`), a looser one in all others. The numbers and
rules are those of the authors' released program.
"""
