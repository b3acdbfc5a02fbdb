"""The features that clients see in ApiVersions (KIP-584): name, levels that this broker speaks, the level in force."""

from typing import NamedTuple


class Feature(NamedTuple):
    """One feature; its levels change with the program only."""

    name: str
    lowest: int
    highest: int
    finalized: int


FEATURES = (
    Feature("group.version", 0, 1, 1),
    Feature("transaction.version", 0, 2, 2),
    # Apache may give key 100 away one day; the feature's name says whose it is here.
    Feature("vector.search", 1, 1, 1),
)
EPOCH = 1
"""Clients ignore finalized features while the epoch is negative."""
