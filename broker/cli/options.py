"""Options that several commands share, and how they are read."""

import re
from datetime import UTC, datetime
from typing import Annotated

import typer

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"

Bootstrap = Annotated[
    str,
    typer.Option(
        "--bootstrap",
        "-b",
        envvar="SENSELOG_BOOTSTRAP",
        metavar="HOST:PORT",
        help="Broker to talk to; several with commas.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
TopicName = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic.", show_default=False)]


def key_values(settings: list[str], option: str) -> dict[str, str]:
    """`["retention.ms=1000"]` -> dict; raises a usage error naming the option."""
    values = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{setting!r}: expected KEY=VALUE", param_hint=option)
        values[key] = value
    return values


def timestamp_ms(text: str | None, option: str) -> int | None:
    """Milliseconds since 1970, from such a number or from ISO 8601 (UTC unless it names a zone)."""
    if text is None:
        return None
    if re.fullmatch(r"\d{9,}", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: expected milliseconds since 1970 or a time such as 2026-01-31T12:00:00Z", param_hint=option
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
