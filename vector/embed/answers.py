"""What the errors of an HTTP server mean for those who wait for its vectors (research/vector-search.md 4). Pure."""

import math
import re
from collections.abc import Callable, Mapping

from vector.embed.port import EmbedError, PausedError, PoisonError, TransientError

RETRY_AFTER_MAX_S = 600.0
REASON_CHARACTERS_MAX = 300
_POISON_STATUSES = frozenset({400, 413, 422})
_PAUSING_STATUSES = frozenset({401, 402, 403, 404})
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def classify(name: str, status: int, code: str | None, message: str, headers: Mapping[str, str]) -> EmbedError:
    """The error that an HTTP status means: wait and try again, pause for a person, or the input is bad."""
    text = f"{name}: HTTP {status}: {message}"
    if code == "insufficient_quota" or status in _PAUSING_STATUSES:
        return PausedError(text)
    if status in _POISON_STATUSES:
        return PoisonError(text)
    return TransientError(text, retry_after_s(headers))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait: Retry-After in seconds, else the longer of OpenAI's x-ratelimit-reset-* ("1s", "6m0s");
    None when it says nothing sensible: some gateways send -1."""
    lowered = {name.lower(): value for name, value in headers.items()}
    plain = _seconds(lowered.get("retry-after"), float)
    if plain is not None:
        return plain
    resets = (_seconds(lowered.get(f"x-ratelimit-reset-{what}"), _duration) for what in ("requests", "tokens"))
    return max((reset for reset in resets if reset is not None), default=None)


def readable(reason: object, secret: str | None) -> str:
    """One line for status and logs, without the key: what a server says may echo what it was sent."""
    said = str(reason).replace(secret, "***") if secret else str(reason)
    return said.splitlines()[0][:REASON_CHARACTERS_MAX] if said.strip() else "no message"


def _seconds(text: str | None, parse: Callable[[str], float]) -> float | None:
    try:
        seconds = math.nan if text is None else parse(text.strip())
    except ValueError:
        return None
    return min(seconds, RETRY_AFTER_MAX_S) if seconds > 0 else None


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise ValueError(text)
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
