"""The API table: one decorator per handler feeds ApiVersions, dispatch, the docs and the version-sweep test."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from protocol.api_keys import ApiKey

Handle = TypeVar("Handle", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Api:
    """One registered API: the versions we implement, and the lowest we advertise (may be lower, KAFKA-18659)."""

    key: ApiKey
    min_version: int
    max_version: int
    advertised_from: int
    handle: Callable[..., Any]


APIS: dict[int, Api] = {}


def api(key: ApiKey, *, versions: tuple[int, int], advertised_from: int | None = None) -> Callable[[Handle], Handle]:
    """Registers the decorated `handle(context, request)` for `versions` (both inclusive).

    The handler returns a response message, a `Deferred` of one, a coroutine, or None (no response: acks=0).
    """

    def register(handle: Handle) -> Handle:
        if key in APIS and APIS[key].handle.__module__ != handle.__module__:
            raise ValueError(f"{key.name} is registered by {APIS[key].handle.__module__} and {handle.__module__}")
        low, high = versions
        APIS[key] = Api(key, low, high, low if advertised_from is None else advertised_from, handle)
        return handle

    return register


def load_handlers() -> dict[int, Api]:
    """Imports every module of `broker.handlers` and returns the API table."""
    package = importlib.import_module("broker.handlers")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"broker.handlers.{module.name}")
    return APIS
