"""Users of HTTP and gRPC: the same names and passwords as for Kafka's SASL, by HTTP's Basic scheme (RFC 7617)."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict

from broker.security.plain import PlainUsers
from broker.security.scram import Credential, ScramMechanism
from broker.security.users import ScramUsers

# A SCRAM password costs milliseconds to check; who calls again and again with the right one pays once.
REMEMBERED_MAX = 1000
# Guesses of strangers never use more than this many threads.
CHECKS_AT_ONCE_MAX = 2
SCHEME = "basic "


class WrongCredentials(Exception):
    """The header names no user of this broker, or not its password."""


class Logins:
    """Finds out whose an Authorization header is."""

    def __init__(self, plain: PlainUsers, users: ScramUsers, failure_delay_s: float) -> None:
        self._plain = plain
        self._users = users
        self._failure_delay_s = failure_delay_s
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, dict[ScramMechanism, Credential]] = OrderedDict()
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE_MAX)

    async def principal(self, authorization: str) -> str:
        """`User:NAME`; raises WrongCredentials, after a delay: guessing takes its time."""
        name, password = basic(authorization)
        if not self._plain.verify(name, password) and not await self._fits(name, password):
            await asyncio.sleep(self._failure_delay_s)
            raise WrongCredentials(f"wrong name or password of {name[:100]!r}")
        return f"User:{name}"

    async def _fits(self, name: str, password: str) -> bool:
        credentials = self._users.of_user(name)
        if not credentials:
            return False
        fingerprint = hmac.digest(self._key, f"{name}\0{password}".encode(), hashlib.sha256)
        if self._remembered.get(fingerprint) == credentials:  # which change with the password
            return True
        mechanism, credential = next(iter(credentials.items()))
        async with self._checks:
            fits = await asyncio.to_thread(credential.fits, mechanism, password)
        if fits:
            self._remembered[fingerprint] = credentials
            if len(self._remembered) > REMEMBERED_MAX:
                self._remembered.popitem(last=False)
        return fits


def basic(authorization: str) -> tuple[str, str]:
    """Name and password of an Authorization header; raises WrongCredentials."""
    if authorization[: len(SCHEME)].lower() != SCHEME:
        raise WrongCredentials("the Authorization header is not of the Basic scheme")
    try:
        text = base64.b64decode(authorization[len(SCHEME) :].strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise WrongCredentials("the Authorization header is not base64 of UTF-8") from None
    name, separator, password = text.partition(":")
    if not separator or not name:
        raise WrongCredentials("the Authorization header has no name and password")
    return name, password
