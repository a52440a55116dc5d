"""The trust campaign: what hostile input, chance and time do to the pack, run again by anyone with ``make campaign``.

A part is a module of this folder with a constant ``PART`` (frame.Part); nothing else registers it. It is imported to be
listed, so it imports what is heavy inside ``run``.
"""
