"""EliGen (arXiv 2501.01097): each phrase is bound to a part of the picture, in one pass and by attention alone."""
