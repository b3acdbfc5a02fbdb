"""SASL SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, 7677), the server's side, as Kafka speaks it.

Kafka's corners, which its clients rely on and libraries do not have: no channel binding is offered and what the client
repeats of it is not checked; extensions are accepted; `e=` is never sent, a failure travels in SaslAuthenticate's own fields.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from broker.security.sasl import BrokenExchange, SaslFailure

NONCE_BYTES = 20
ITERATIONS_MIN, ITERATIONS_MAX, ITERATIONS_DEFAULT = 4096, 16384, 8192

_NAME = r"(?:[\x01-\x2b\x2d-\x3c\x3e-\x7f]|=2C|=3D)+"
_VALUE = r"[\x01-\x2b\x2d-\x7f]+"
_PRINTABLE = r"[\x21-\x2b\x2d-\x7e]+"
_BASE64 = r"(?:[a-zA-Z0-9/+]{4})*(?:[a-zA-Z0-9/+]{3}=|[a-zA-Z0-9/+]{2}==)?"
_EXTENSIONS = rf"(?:,[A-Za-z]+={_VALUE})*"
_FIRST = re.compile(
    rf"n,(?:a=(?P<authorization_id>{_NAME}))?,(?:m={_VALUE},)?n=(?P<name>{_NAME}),r=(?P<nonce>{_PRINTABLE})(?P<extensions>{_EXTENSIONS})"
)
_FINAL = re.compile(rf"(?P<unsigned>c={_BASE64},r=(?P<nonce>{_PRINTABLE}){_EXTENSIONS}),p=(?P<proof>{_BASE64})")
_BY_DELEGATION = ",tokenauth=true"


class ScramMechanism(IntEnum):
    """Kafka's codes in requests 50 and 51."""

    UNKNOWN = 0
    SCRAM_SHA_256 = 1
    SCRAM_SHA_512 = 2

    @property
    def mechanism_name(self) -> str:
        return self.name.replace("_", "-")

    @property
    def hash_name(self) -> str:
        return "sha256" if self is ScramMechanism.SCRAM_SHA_256 else "sha512"


MECHANISMS = (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)


class Credential(NamedTuple):
    """What is kept of a password; it cannot be had back from it."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of_salted(cls, mechanism: ScramMechanism, salted_password: bytes, salt: bytes, iterations: int) -> "Credential":
        hash_name = mechanism.hash_name
        client_key = hmac.digest(salted_password, b"Client Key", hash_name)
        return cls(
            iterations,
            salt,
            hashlib.new(hash_name, client_key).digest(),
            hmac.digest(salted_password, b"Server Key", hash_name),
        )

    @classmethod
    def of_password(
        cls, mechanism: ScramMechanism, password: str, *, iterations: int = ITERATIONS_DEFAULT
    ) -> "Credential":
        """With a salt of its own."""
        salt = secrets.token_bytes(NONCE_BYTES)
        return cls.of_salted(mechanism, salted(mechanism, password, salt, iterations), salt, iterations)

    def fits(self, mechanism: ScramMechanism, password: str) -> bool:
        """Whether it was made of this password; costs milliseconds."""
        salted_password = salted(mechanism, password, self.salt, self.iterations)
        other = Credential.of_salted(mechanism, salted_password, self.salt, self.iterations)
        return hmac.compare_digest(other.stored_key, self.stored_key)


def salted(mechanism: ScramMechanism, password: str, salt: bytes, iterations: int) -> bytes:
    """Hi() of RFC 5802. Kafka's clients do not apply SASLprep, so nobody does."""
    return hashlib.pbkdf2_hmac(mechanism.hash_name, password.encode(), salt, iterations)


Find: TypeAlias = Callable[[str, ScramMechanism], Credential | None]
"""A user's credential for a mechanism."""


class ScramExchange:
    """First message with the user's name, answered with salt and nonce; final message with the proof."""

    expires_at_ms = None

    def __init__(self, mechanism: ScramMechanism, find: Find) -> None:
        self.principal: str | None = None
        self._mechanism = mechanism
        self._find = find
        self._name = ""
        self._credential: Credential | None = None
        self._nonce = ""
        self._signed = ""

    def respond(self, token: bytes) -> bytes:
        text = token.decode(errors="replace")
        return self._first(text) if self._credential is None else self._final(text, self._credential)

    def _failure(self) -> SaslFailure:
        name = self._mechanism.mechanism_name
        return SaslFailure(
            f"Authentication failed during authentication due to invalid credentials with SASL mechanism {name}"
        )

    def _first(self, text: str) -> bytes:
        match = _FIRST.fullmatch(text)
        if match is None:
            raise self._failure()
        name = _unescaped(match["name"])
        authorization_id = match["authorization_id"]
        # Delegation tokens are authenticated in this way too; there are none here.
        if f"{_BY_DELEGATION}," in f"{match['extensions']},":
            raise self._failure()
        credential = self._find(name, self._mechanism)
        if credential is None or (authorization_id and _unescaped(authorization_id) != name):
            raise self._failure()
        self._name, self._credential = name, credential
        self._nonce = match["nonce"] + secrets.token_hex(NONCE_BYTES)
        answer = f"r={self._nonce},s={base64.b64encode(credential.salt).decode()},i={credential.iterations}"
        self._signed = f"n={match['name']},r={match['nonce']}{match['extensions']},{answer}"
        return answer.encode()

    def _final(self, text: str, credential: Credential) -> bytes:
        match = _FINAL.fullmatch(text)
        if match is None or not hmac.compare_digest(match["nonce"].encode(), self._nonce.encode()):
            raise self._failure()
        hash_name = self._mechanism.hash_name
        signed = f"{self._signed},{match['unsigned']}".encode()
        signature = hmac.digest(credential.stored_key, signed, hash_name)
        proof = base64.b64decode(match["proof"])
        if len(proof) != len(signature):
            raise BrokenExchange(f"a proof of {len(proof)} bytes, {len(signature)} are right")
        client_key = bytes(one ^ other for one, other in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.new(hash_name, client_key).digest(), credential.stored_key):
            raise self._failure()
        self.principal = f"User:{self._name}"
        return b"v=" + base64.b64encode(hmac.digest(credential.server_key, signed, hash_name))


def _unescaped(name: str) -> str:
    return name.replace("=2C", ",").replace("=3D", "=")
