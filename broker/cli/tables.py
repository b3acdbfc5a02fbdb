"""Tables as all commands draw them."""

import os
import sys

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

# Without a terminal rich assumes 80 columns; a pipe or a file has no such limit.
_PIPE_COLUMNS = 160


def console() -> Console:
    """Standard output; plain text when it is not a terminal. COLUMNS overrides the width."""
    fits = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if fits else _PIPE_COLUMNS)


def table(*columns: str | tuple[str, JustifyMethod]) -> Table:
    """A light table; a column is its title, or (title, justification)."""
    shown = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for column in columns:
        title, justify = (column, "left") if isinstance(column, str) else column
        shown.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return shown


def readable(data: bytes | None) -> str:
    """Bytes for a person: text as it is, control characters and broken UTF-8 escaped."""
    if data is None:
        return ""
    text = data.decode("utf-8", errors="backslashreplace")
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )
