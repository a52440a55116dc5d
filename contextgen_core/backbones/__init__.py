"""What a model family is: its token order, position ids and blocks, and the weights of one block as functions."""
