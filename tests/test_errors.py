"""What an InputError shows and carries."""

from __future__ import annotations

import pickle

from contextgen_core.errors import InputError


def test_node_and_input_stand_before_the_sentence() -> None:
    error = InputError("the box is empty; draw one.", "LayoutComposer", "layout")
    assert str(error) == "LayoutComposer, layout: the box is empty; draw one."
    assert (error.message, error.node, error.input) == ("the box is empty; draw one.", "LayoutComposer", "layout")
    assert str(InputError("the box is empty; draw one.")) == "the box is empty; draw one."


def test_it_crosses_processes_whole() -> None:
    error = pickle.loads(pickle.dumps(InputError("none.", "LayoutComposer", "layout")))  # noqa: S301  our own bytes
    assert str(error) == "LayoutComposer, layout: none." and error.node == "LayoutComposer"
