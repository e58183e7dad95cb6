"""How a map with a rule of its own is computed, if it is to be differentiated again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Twice:
    """What the nodes of one map's graph are for at the moment. Lives inside the call that computes it.

    A rule is a part of the map and no derivative: once the map is there, its nodes have their own gradients.

    Parameters
    ----------
    again
        Whether the map is differentiated again.
    over
        Whether the map is there.
    """

    again: bool = False
    over: bool = False
