"""SASL OAUTHBEARER (RFC 7628, KIP-255, KIP-768): a JWT signed by a key that the operator trusts.

`RS…`, `PS…` and `ES…` signatures are accepted; never `none`, nor a shared secret. Keys come from a JWKS file or URL; one that
is not known yet is fetched in the background, and the client's next attempt finds it.
"""

import json
import re
import threading
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import structlog

from broker.config import Config, ConfigError
from broker.security.sasl import SaslFailure
from storage.clock import Clock

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
# An identity provider that does not answer, or answers without end, must not hold a thread or memory.
FETCH_TIMEOUT_S = 10
JWKS_BYTES_MAX = 1 << 20
# Tokens with made-up key ids must not make us ask the provider all the time (Kafka's is 10 s too).
UNKNOWN_KEY_REFRESH_S = 10.0
_FIRST = re.compile(
    r"n,(?:a=(?P<authorization_id>(?:[\x01-\x2b\x2d-\x3c\x3e-\x7f]|=2C|=3D)+))?,\x01(?P<pairs>(?:[^\x01]+\x01)*)\x01"
)
_BEARER = re.compile(r"auth=bearer +(?P<token>[-_.A-Za-z0-9+/~]+=*)", re.IGNORECASE)

logger = structlog.get_logger(__name__)


class Keys:
    """The keys that tokens are signed with, by key id. `fetch` returns the JWKS document; a URL is asked in a thread."""

    def __init__(self, url: str, clock: Clock, refresh_ms: int, fetch: Callable[[str], bytes] | None = None) -> None:
        """Raises ConfigError for a file that cannot be read; a URL may answer later."""
        self._url = url
        self._clock = clock
        self._refresh_s = refresh_ms / 1000
        self._fetch = fetch or _fetch
        self._keys: Mapping[str | None, Any] = {}
        self._asked_s = clock.monotonic()
        self._asking = threading.Lock()
        if url.startswith("file:"):
            try:
                self._keys = _parse(self._fetch(url))
            except (OSError, ValueError) as error:
                raise ConfigError(f"sasl.oauthbearer.jwks.endpoint.url: {url}: {error}") from None
        else:
            self._ask_again()

    def get(self, key_id: str | None) -> Any:
        """The key of that id; without an id the only key. None: not known (yet)."""
        age_s = self._clock.monotonic() - self._asked_s
        found = self._keys.get(key_id)
        if found is None and key_id is None and len(self._keys) == 1:
            found = next(iter(self._keys.values()))
        if age_s > self._refresh_s or (found is None and age_s > UNKNOWN_KEY_REFRESH_S):
            self._ask_again()
        return found

    def _ask_again(self) -> None:
        if self._asking.acquire(blocking=False):
            self._asked_s = self._clock.monotonic()
            threading.Thread(target=self._ask, name="jwks", daemon=True).start()

    def _ask(self) -> None:
        try:
            self._keys = _parse(self._fetch(self._url))
        except (OSError, ValueError) as error:
            logger.warning("keys of tokens cannot be fetched", url=self._url, error=str(error))
        finally:
            self._asking.release()


def _fetch(url: str) -> bytes:
    """Raises OSError."""
    if url.startswith("file:"):
        return Path(url.removeprefix("file:").replace("//", "/", 1)).read_bytes()
    with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as response:  # noqa: S310 - the operator's own URL
        data: bytes = response.read(JWKS_BYTES_MAX + 1)
    if len(data) > JWKS_BYTES_MAX:
        raise OSError(f"more than {JWKS_BYTES_MAX} bytes")
    return data


def _parse(data: bytes) -> Mapping[str | None, Any]:
    """Raises ValueError. Keys of kinds that we do not know are left out."""
    try:
        rows = json.loads(data)["keys"]
        return {row.get("kid"): jwt.PyJWK(row).key for row in rows if row.get("kty") in ("RSA", "EC")}
    except (KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise ValueError(f"not a JWKS document: {error}") from None


class TokenVerifier:
    """Says whose a token is and how long it holds."""

    def __init__(self, config: Config, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._audience = [name.strip() for name in config.sasl_oauthbearer_expected_audience.split(",") if name.strip()]
        self._issuer = config.sasl_oauthbearer_expected_issuer
        self._subject_claim = config.sasl_oauthbearer_sub_claim_name
        self._skew_s = config.sasl_oauthbearer_clock_skew_seconds

    def verify(self, token: str) -> tuple[str, int]:
        """(the subject, when it expires in ms since 1970); raises SaslFailure, which says nothing of the token."""
        try:
            key = self._keys.get(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise SaslFailure("the token's key is not known")
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._audience or None,
                issuer=self._issuer or None,
                # Times are checked below: by our clock, and with the skew in one place.
                options={
                    "require": ["exp", self._subject_claim],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                    "verify_aud": bool(self._audience),
                },
            )
        except jwt.PyJWTError as error:
            raise SaslFailure(f"the token is not valid: {error}") from None
        return self._checked(claims)

    def _checked(self, claims: Mapping[str, Any]) -> tuple[str, int]:
        now_s = self._clock.time_ms() / 1000
        expires, begins = claims["exp"], claims.get("nbf", claims.get("iat", 0))
        if not all(isinstance(moment, int | float) for moment in (expires, begins)):
            raise SaslFailure("the token is not valid: exp, nbf and iat must be numbers")
        if expires + self._skew_s <= now_s:
            raise SaslFailure("the token has expired")
        if begins - self._skew_s > now_s:
            raise SaslFailure("the token is not valid yet")
        subject = claims[self._subject_claim]
        if not isinstance(subject, str) or not subject:
            raise SaslFailure(f"the token is not valid: {self._subject_claim} must be a name")
        return subject, int(expires * 1000)


class OAuthBearerExchange:
    """One message with the token; after a refusal that the client acknowledges, the failure."""

    def __init__(self, verify: Callable[[str], tuple[str, int]]) -> None:
        self.principal: str | None = None
        self.expires_at_ms: int | None = None
        self._verify = verify
        self._failure = ""

    def respond(self, token: bytes) -> bytes:
        if self._failure:
            raise SaslFailure(self._failure)
        match = _FIRST.fullmatch(token.decode(errors="replace"))
        bearer = None if match is None else self._bearer(match["pairs"])
        if match is None or bearer is None:
            raise SaslFailure("Invalid OAUTHBEARER client first message")
        try:
            subject, expires_at_ms = self._verify(bearer)
        except SaslFailure as error:
            # RFC 7628, 3.2.3: the client answers with %x01 and is refused then. Kafka's and librdkafka's clients expect it.
            self._failure = f"Authentication failed: {error}"
            return b'{"status":"invalid_token"}'
        if match["authorization_id"] not in (None, subject):
            raise SaslFailure(
                "Authentication failed: Client requested an authorization id that is different from the token's"
            )
        self.principal, self.expires_at_ms = f"User:{subject}", expires_at_ms
        return b""

    def _bearer(self, pairs: str) -> str | None:
        for pair in pairs.split("\x01"):
            if match := _BEARER.fullmatch(pair):
                return match["token"]
        return None
