"""`senselog search`: find records by meaning."""

import json
from typing import Annotated, Any, Literal

import typer

from broker.cli.options import DEFAULT_BOOTSTRAP, AsJson, Bootstrap, TopicName, timestamp_ms
from broker.cli.where import HELP, where_filter

EXAMPLES = """
[bold]Examples[/bold]

  senselog search logs "database connection errors"
  senselog search logs "who failed to log in" -k 3 --latest
  senselog search logs "disk full" --partition 0 --min-offset 1000 --max-offset 5000
  senselog search logs "out of memory" --since 2026-01-31T12:00:00Z --json
  senselog search logs "payment refused" --where '$.code>=500' --where header:service=pay --collapse '$.user'
  senselog search logs "ERR-4711 connection pool" --mode hybrid
"""
_VALUE_BYTES_SHOWN = 2_000


def search(
    topic: TopicName,
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="What to look for, in plain words.", show_default=False)
    ],
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, max=1000, help="How many hits.")] = 10,
    latest: Annotated[
        bool, typer.Option("--latest", help="First wait until all produced so far is searchable.")
    ] = False,
    wait_ms: Annotated[int, typer.Option("--wait-ms", min=0, help="How long --latest waits.")] = 5_000,
    partitions: Annotated[
        list[int] | None, typer.Option("--partition", "-p", help="Only this one; may be repeated.", show_default=False)
    ] = None,
    min_offset: Annotated[int | None, typer.Option(min=0, help="Only from this offset on.", show_default=False)] = None,
    max_offset: Annotated[int | None, typer.Option(min=0, help="Only up to it, included.", show_default=False)] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only from this time on.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only before this time.", show_default=False)
    ] = None,
    where: Annotated[list[str] | None, typer.Option(metavar="CONDITION", help=HELP, show_default=False)] = None,
    mode: Annotated[
        Literal["vector", "text", "hybrid"], typer.Option(help="By meaning, by the words themselves, or by both.")
    ] = "vector",
    collapse: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT", help="One hit for all with the same text, key, header:NAME or $.path.", show_default=False
        ),
    ] = None,
    min_similarity: Annotated[
        float | None, typer.Option(help="Only hits at least so similar.", show_default=False)
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every vector, not by the graph.")] = False,
    timeout_ms: Annotated[int, typer.Option(min=1, help="Of the search itself.")] = 10_000,
    as_json: AsJson = False,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Search a topic by meaning, by words, or by both."""
    conditions = where_filter(where or ())
    if partitions:
        conditions["partitions"] = partitions
    offset = {"gte": min_offset, "lte": max_offset}
    timestamp = {"gte": timestamp_ms(since, "--since"), "lt": timestamp_ms(until, "--until")}
    for name, bounds in (("offset", offset), ("timestamp", timestamp)):
        given = {bound: value for bound, value in bounds.items() if value is not None}
        if given:
            conditions[name] = given
    from broker.cli.connect import searcher

    with searcher(bootstrap) as client:
        result = client.search(
            topic,
            query,
            limit=limit,
            mode=mode,
            filter=conditions,
            collapse=collapse,
            min_similarity=min_similarity,
            latest=latest,
            max_wait_ms=wait_ms if latest else 0,
            exact=exact,
            timeout_ms=timeout_ms,
        )
    if as_json:
        typer.echo(json.dumps(_document(topic, result), indent=2, ensure_ascii=False))
    else:
        print_hits(result)


def print_hits(result: Any) -> None:
    """The hits of a `senselog_client.SearchResult` as a table, and the line that says how fresh they are."""
    from rich.markup import escape

    from broker.cli.tables import console, readable, table

    out = console()
    if result.hits:
        score_of = "similarity" if result[0].text_score is None and result[0].similarity is not None else "score"
        shown = table((score_of, "right"), ("record", "right"), "value")
        for hit in result:
            score = hit.similarity if score_of == "similarity" and hit.similarity is not None else hit.score
            more = f" [dim]+{hit.duplicates} alike[/dim]" if hit.duplicates else ""
            value = escape(readable((hit.value or b"")[:_VALUE_BYTES_SHOWN]))
            shown.add_row(f"[green]{score:.3f}[/green]", f"[cyan]{hit.partition}@{hit.offset}[/cyan]", value + more)
        out.print(shown)
    else:
        out.print("no hits")
    out.print(f"[dim]{escape(freshness_line(result))}[/dim]")


def freshness_line(result: Any) -> str:
    """Which model, how much of the log was searchable, and where the time went."""
    searched = [state for state in result.freshness if state.searched]
    end = sum(state.last_stable_offset - state.log_start_offset for state in searched)
    indexed = sum(
        max(0, min(state.indexed_offset, state.last_stable_offset) - state.log_start_offset) for state in searched
    )
    behind = end - indexed
    fresh = (
        f"all {end:,} records searchable"
        if not behind
        else f"{indexed:,} of {end:,} records searchable, {behind:,} to come"
    )
    waited = f", wait {result.wait_micros / 1000:.1f}" if result.wait_micros >= 50 else ""
    took = (result.embed_micros + result.wait_micros + result.search_micros + result.read_micros) / 1000
    spent = f"embed {result.embed_micros / 1000:.1f}{waited}, search {result.search_micros / 1000:.1f}, read {result.read_micros / 1000:.1f}"
    parts = [
        f"{len(searched)} partition{'s' if len(searched) != 1 else ''}",
        fresh,
        f"{result.model} ({result.dimensions} dimensions, {result.metric})",
        f"{took:.1f} ms ({spent})",
    ]
    if not result.complete:
        parts.append("INCOMPLETE: not every partition could be searched")
    return " · ".join(parts)


def _document(topic: str, result: Any) -> dict[str, Any]:
    from broker.cli.consume import json_bytes

    return {
        "topic": topic,
        "results": [
            {
                "partition": hit.partition,
                "offset": hit.offset,
                "timestamp": hit.timestamp_ms,
                "score": hit.score,
                "similarity": hit.similarity,
                "text_score": hit.text_score,
                "duplicates": hit.duplicates,
                "truncated": hit.truncated,
                **json_bytes("key", hit.key),
                **json_bytes("value", hit.value),
                "headers": [{"name": name, **json_bytes("value", value)} for name, value in hit.headers],
            }
            for hit in result
        ],
        "model": {"name": result.model, "dimensions": result.dimensions, "generation": result.generation},
        "metric": result.metric,
        "freshness": {"complete": result.complete, "lag": result.lag, "partitions": states(result)},
        "stats": {
            name: getattr(result, name) for name in ("embed_micros", "wait_micros", "search_micros", "read_micros")
        },
    }


def states(result: Any) -> list[dict[str, Any]]:
    """The partition states of a result or status, JSON-able."""
    from dataclasses import asdict

    return [asdict(state) | {"lag": state.lag} for state in result.freshness]
