"""Failures a person can act on, each as one line that names the thing."""


class Failure(Exception):
    """Ends a command with exit code 1 and this line."""


_KAFKA_MESSAGES = {
    "UnknownTopicOrPartitionError": "the topic or partition does not exist",
    "TopicAlreadyExistsError": "the topic exists already",
    "OffsetOutOfRangeError": "the offset lies outside the log",
    "KafkaTimeoutError": "the broker does not let us in: do protocol, user and password fit it (--client-config)?",
    "SaslAuthenticationFailedError": "wrong name or password (--client-config)",
}


# Exceptions of these packages are written for people.
_OURS = {"broker", "protocol", "senselog_client", "storage", "vector"}


def describe(error: Exception) -> str:
    """One line for any exception. Anything not expected says how to see where it came from."""
    # protocol's KafkaError puts its code before its message; kafka-python's error for a code has no message at all.
    message = " ".join(str(getattr(error, "message", None) or error).split())
    package = type(error).__module__.partition(".")[0]
    if package in _OURS:
        return message
    if package == "kafka":
        return _KAFKA_MESSAGES.get(type(error).__name__, message or type(error).__name__)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {message} (SENSELOG_TRACEBACK=1 shows where)"
