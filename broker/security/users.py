"""SCRAM users: durable before a change is answered, in force at once."""

from collections.abc import Mapping

from broker.meta_store import MetaStore
from broker.security.scram import Credential, ScramMechanism


class ScramUsers:
    """Who may log in by SCRAM. A user may have a credential for each mechanism."""

    def __init__(self, store: MetaStore) -> None:
        self._store = store
        self._credentials = {
            (name, ScramMechanism(code)): Credential(*fields)
            for name, rows in store.metadata.scram.items()
            for code, fields in rows.items()
        }

    def get(self, name: str, mechanism: ScramMechanism) -> Credential | None:
        return self._credentials.get((name, mechanism))

    def of_user(self, name: str) -> dict[ScramMechanism, Credential]:
        return {mechanism: found for (user, mechanism), found in self._credentials.items() if user == name}

    def names(self) -> list[str]:
        """In order."""
        return sorted({name for name, _ in self._credentials})

    def change(self, changes: Mapping[tuple[str, ScramMechanism], Credential | None]) -> None:
        """Sets credentials, or removes those that are None; raises OSError, and then nothing is changed."""
        credentials = {**self._credentials, **changes}
        kept = {key: credential for key, credential in credentials.items() if credential is not None}
        rows: dict[str, dict[int, list[object]]] = {}
        for (name, mechanism), credential in kept.items():
            rows.setdefault(name, {})[int(mechanism)] = list(credential)
        self._store.replace(scram=rows)
        self._credentials = kept
