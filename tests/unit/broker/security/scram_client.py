"""The client's side of SCRAM, as RFC 5802 says it, to hold the server against."""

import base64
import hashlib
import hmac


class ScramClient:
    """One exchange; `hash_name` is hashlib's."""

    def __init__(self, hash_name: str, name: str, password: str, nonce: str = "fyko+d2lbbFgONRv9qkxdawL") -> None:
        self._hash = hash_name
        self._password = password
        self._bare = f"n={name.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
        self._verifier = b""

    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def final(self, server_first: bytes) -> bytes:
        told = dict(part.split("=", 1) for part in server_first.decode().split(","))
        unsigned = f"c=biws,r={told['r']}"
        signed = f"{self._bare},{server_first.decode()},{unsigned}".encode()
        salt, iterations = base64.b64decode(told["s"]), int(told["i"])
        salted = hashlib.pbkdf2_hmac(self._hash, self._password.encode(), salt, iterations)
        key = hmac.digest(salted, b"Client Key", self._hash)
        signature = hmac.digest(hashlib.new(self._hash, key).digest(), signed, self._hash)
        proof = bytes(one ^ other for one, other in zip(key, signature, strict=True))
        self._verifier = hmac.digest(hmac.digest(salted, b"Server Key", self._hash), signed, self._hash)
        return f"{unsigned},p={base64.b64encode(proof).decode()}".encode()

    def verifies(self, server_final: bytes) -> bool:
        return server_final == b"v=" + base64.b64encode(self._verifier)
