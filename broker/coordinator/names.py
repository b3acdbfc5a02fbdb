"""Names that clients give and that must be stored."""

# Names are written as strings with a 16-bit length; what is longer could be accepted but never stored.
NAME_BYTES_MAX = 32_000


def is_too_long(name: str) -> bool:
    """Whether a name of a group, member, instance or protocol could not be written to the journal."""
    return len(name.encode("utf-8", "surrogatepass")) > NAME_BYTES_MAX
