"""SASL PLAIN (RFC 4616): name and password in clear, against a file of users that the operator writes."""

import hmac
from collections.abc import Callable
from pathlib import Path

import structlog

from broker.config import ConfigError
from broker.security.sasl import SaslFailure

logger = structlog.get_logger(__name__)


class PlainUsers:
    """Lines of `NAME=PASSWORD` (`#` begins a comment); a file that is replaced counts from the next login on."""

    def __init__(self, file: Path | None) -> None:
        """Raises ConfigError naming the key."""
        self._file = file
        self._stamp = (0, 0)
        self._passwords: dict[str, str] = {}
        if file is not None:
            try:
                self._reload(file)
            except (OSError, ValueError) as error:
                raise ConfigError(f"sasl.plain.users.file: {file}: {error}") from None

    def verify(self, name: str, password: str) -> bool:
        """Takes the same time for a wrong password and for a user that does not exist."""
        if self._file is not None:
            try:
                self._reload(self._file)
            except (OSError, ValueError) as error:
                logger.warning("users stay as they were", file=str(self._file), error=str(error))
        expected = self._passwords.get(name)
        same = hmac.compare_digest(password.encode(errors="replace"), (expected or "").encode(errors="replace"))
        return same and expected is not None

    def _reload(self, file: Path) -> None:
        status = file.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._passwords = dict(_lines(file.read_text(encoding="utf-8")))
            self._stamp = stamp


def _lines(text: str) -> list[tuple[str, str]]:
    users = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, separator, password = line.partition("=")
        if not separator or not name.strip() or not password:
            raise ValueError(f"line {number} is not NAME=PASSWORD")
        users.append((name.strip(), password))
    return users


class PlainExchange:
    """One token, in which client and user may be named apart only if they are the same."""

    expires_at_ms = None

    def __init__(self, verify: Callable[[str, str], bool]) -> None:
        self.principal: str | None = None
        self._verify = verify

    def respond(self, token: bytes) -> bytes:
        parts = token.decode(errors="replace").split("\0")
        if len(parts) != 3:
            raise SaslFailure(f"Invalid SASL/PLAIN response: expected 3 tokens, got {len(parts)}")
        authorization_id, name, password = parts
        if not name:
            raise SaslFailure("Authentication failed: username not specified")
        if not password:
            raise SaslFailure("Authentication failed: password not specified")
        if not self._verify(name, password):
            raise SaslFailure("Authentication failed: Invalid username or password")
        if authorization_id not in ("", name):
            raise SaslFailure(
                "Authentication failed: Client requested an authorization id that is different from username"
            )
        self.principal = f"User:{name}"
        return b""
