"""Whether a provider may be called now: one state for all its models and calls. Pure: the clock and chance are the caller's.

closed: it works. open: it failed; after a cooldown one call tries again while the others wait. paused: only a person can help; it
is tried again all the same, now and then, for the key may have been mended meanwhile.
"""

from typing import Literal

from vector.embed.port import EmbedError, PausedError, TransientError

BACKOFF_MIN_S = 0.2
BACKOFF_MAX_S = 60.0
PAUSE_RETRY_S = 30.0
"""A pause ends by itself once a try succeeds: the key was mended, the quota raised, the model exported."""
_ATTEMPTS_COUNTED_MAX = 16
State = Literal["closed", "open", "paused"]


class Circuit:
    """See the module. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        """Why nothing is embedded at the moment; None: closed."""
        self.paused = False
        self.opened = 0
        """How often it has opened."""
        self._until = 0.0
        self._attempt = 0
        self._probing = False

    @property
    def state(self) -> State:
        if self.trouble is None:
            return "closed"
        return "paused" if self.paused else "open"

    def cooldown_s(self, now: float) -> float:
        """For how long nobody may call."""
        return max(0.0, self._until - now)

    def enter(self, now: float) -> int | None:
        """A token for a call that may begin now, to end it with: `succeeded`, `failed` or `left`. None: not now."""
        if self.trouble is not None:
            if self._probing or self._until > now:
                return None
            self._probing = True
        return self.opened

    def left(self, token: int) -> None:
        """The call ended without an answer: it was cancelled."""
        if token == self.opened:
            self._probing = False

    def succeeded(self, token: int) -> None:
        """The provider answered, be it that it refuses a text. An answer to a call from before the cooldown does not end that."""
        if token == self.opened:
            self.trouble, self.paused = None, False
            self._attempt, self._until, self._probing = 0, 0.0, False

    def failed(self, token: int, error: EmbedError, now: float, chance: float) -> None:
        """A call failed: the server's own wish decides how long to wait, else back-off with full jitter (`chance` in [0, 1])."""
        if self.trouble is None:
            self.opened += 1
        elif token != self.opened:  # one of several that ran into the same wall
            if isinstance(error, TransientError) and error.retry_after_s is not None:
                self._until = max(self._until, now + error.retry_after_s)
            return
        self.trouble, self.paused = str(error), isinstance(error, PausedError)
        self._probing = False
        if self.paused:
            wait_s = PAUSE_RETRY_S
        elif isinstance(error, TransientError) and error.retry_after_s is not None:
            wait_s = error.retry_after_s
        else:
            highest_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0**self._attempt)
            wait_s = BACKOFF_MIN_S / 2 + chance * max(0.0, highest_s - BACKOFF_MIN_S / 2)
            self._attempt = min(self._attempt + 1, _ATTEMPTS_COUNTED_MAX)
        self._until = max(self._until, now + wait_s)

    def retry_now(self) -> None:
        """Ends the cooldown: a person says that the cause is mended."""
        self._until = 0.0
