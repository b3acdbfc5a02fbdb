"""Failures a person can act on, each as one line that names the thing."""

import sys


class Failure(Exception):
    """Ends a command with exit code 1 and this line."""


_KAFKA_MESSAGES = {
    "UnknownTopicOrPartitionError": "the topic or partition does not exist",
    "TopicAlreadyExistsError": "the topic exists already",
    "OffsetOutOfRangeError": "the offset lies outside the log",
}


def describe(error: Exception) -> str:
    """One line for any exception. Anything not expected says how to see where it came from."""
    message = " ".join(str(error).split())
    if isinstance(error, Failure) or _is_ours(error):
        return " ".join(str(getattr(error, "message", message)).split())  # protocol's KafkaError prefixes its code
    if _module(error).startswith("kafka."):
        return _KAFKA_MESSAGES.get(type(error).__name__, message or type(error).__name__)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else message
    return f"{type(error).__name__}: {message} (SENSELOG_TRACEBACK=1 shows where)"


def _is_ours(error: Exception) -> bool:
    """Ours write messages for people: ConfigError, SearchError, KafkaError … Looked up, not imported: imports cost time."""
    known = (("broker.config", "ConfigError"), ("senselog_client", "SearchError"), ("protocol.errors", "KafkaError"))
    for module, name in known:
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(error, getattr(loaded, name)):
            return True
    return False


def _module(error: Exception) -> str:
    return type(error).__module__ + "."
