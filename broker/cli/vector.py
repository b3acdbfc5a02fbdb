"""`senselog vector …`: the index of a topic."""

import json
from typing import Any

import typer

from broker.cli.options import DEFAULT_BOOTSTRAP, AsJson, Bootstrap, TopicName

app = typer.Typer(help="The index of a topic.", no_args_is_help=True, rich_markup_mode="rich")

_EXAMPLES = """
[bold]Example[/bold]

  senselog vector status logs

More detail (states, counters, segments) at `GET /v1/topics/TOPIC/vector` of the broker's HTTP port.
"""


@app.callback()
def _group() -> None:
    """The index of a topic."""


@app.command(epilog=_EXAMPLES)
def status(topic: TopicName, as_json: AsJson = False, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> None:
    """Show how far a topic is indexed, and by which model."""
    from broker.cli.connect import searcher

    with searcher(bootstrap) as client:
        found = client.status(topic)
    if as_json:
        typer.echo(json.dumps(_document(topic, found), indent=2))
        return
    from broker.cli.tables import console, table

    out = console()
    state = "up to date" if not found.lag else f"{found.lag:,} records to go"
    out.print(f"[bold]{topic}[/bold]  {state}  ·  {found.model}, {found.dimensions} dimensions, {found.metric}")
    columns = ("partition", "log start", "end", "indexed", "to go", "failed", "lag ms")
    shown = table(*((column, "right") for column in columns))
    for partition in found.freshness:
        shown.add_row(
            str(partition.partition),
            str(partition.log_start_offset),
            str(partition.last_stable_offset),
            str(partition.indexed_offset),
            str(partition.lag),
            str(partition.failed),
            str(max(0, partition.lag_ms)),
        )
    out.print(shown)


def _document(topic: str, found: Any) -> dict[str, Any]:
    from broker.cli.search import states

    return {
        "topic": topic,
        "model": {"name": found.model, "dimensions": found.dimensions, "generation": found.generation},
        "metric": found.metric,
        "complete": found.complete,
        "lag": found.lag,
        "partitions": states(found),
    }
