"""Subscriptions by regular expression (KIP-848), in RE2's syntax: whatever the pattern, matching takes linear time."""

from collections.abc import Iterable

from protocol.errors import ErrorCode, KafkaError


def matching_topics(pattern: str, names: Iterable[str]) -> frozenset[str]:
    """The names that the whole pattern matches. Raises KafkaError INVALID_REGULAR_EXPRESSION for one that is none."""
    import re2  # the only place that needs the native library

    options = re2.Options()
    options.log_errors = False
    try:
        matches = re2.compile(pattern, options).fullmatch
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise KafkaError(
            ErrorCode.INVALID_REGULAR_EXPRESSION,
            f"SubscribedTopicRegex `{pattern}` is not a valid regular expression: {reason}.",
        ) from None
    return frozenset(name for name in names if matches(name))
