"""An identity provider of one key: tokens, and the JWKS document that they are checked with."""

import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa


class Provider:
    """Signs tokens with a key of its own."""

    def __init__(self, key_id: str = "one") -> None:
        self.key_id = key_id
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def token(self, **claims: Any) -> str:
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": self.key_id})

    @property
    def jwks(self) -> bytes:
        row = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return json.dumps({"keys": [{**row, "kid": self.key_id, "use": "sig", "alg": "RS256"}]}).encode()
