"""The vector index of one partition: growing and sealed segments, exact at every filter (design/vector.md)."""
