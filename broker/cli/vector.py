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
    model = f"{found.model}, {found.dimensions} dimensions, {found.metric}" if found.dimensions else str(found.model)
    out.print(f"{topic}  {_state(found)}  ·  {model}", markup=False, style="bold", soft_wrap=True)
    if found.trouble:
        out.print(found.trouble, markup=False, soft_wrap=True)
    columns = ("partition", "log start", "end", "indexed", "to go", "failed", "lag ms")
    shown = table(*((column, "right") for column in columns))
    for partition in found.freshness:
        shown.add_row(
            str(partition.partition),
            str(partition.log_start_offset),
            str(partition.last_stable_offset),
            "–" if partition.indexed_offset < 0 else str(partition.indexed_offset),
            str(partition.lag),
            str(partition.failed),
            str(max(0, partition.lag_ms)),
        )
    out.print(shown)


def _state(found: Any) -> str:
    if found.lag:
        return f"{found.lag:,} record{'s' if found.lag != 1 else ''} to go"
    # A partition whose index is not open yet may lack records that no lag tells of.
    return "up to date" if found.complete and not found.trouble else "not up to date"


def _document(topic: str, found: Any) -> dict[str, Any]:
    from broker.cli.search import states

    return {
        "topic": topic,
        "model": {"name": found.model, "dimensions": found.dimensions, "generation": found.generation},
        "metric": found.metric,
        "complete": found.complete,
        "lag": found.lag,
        "trouble": found.trouble,
        "partitions": states(found),
    }
