"""`senselog vector status`: how far a topic is indexed, how fast, by which model, and what it takes."""

import json
import sys
import time
from typing import Annotated, Any

import typer

from broker.cli.options import DEFAULT_BOOTSTRAP, AsJson, Bootstrap, TopicName

WATCH_INTERVAL_S = 1.0
_BAR_WIDTH = 30
EXAMPLES = """
[bold]Examples[/bold]

  senselog vector status logs
  senselog vector status logs --watch                  (until it is up to date)
  senselog vector status logs --json | jq .index.eta_s

The same document, with every segment, is at `GET /v1/topics/TOPIC/vector` of the broker's HTTP port.
"""


def status(
    topic: TopicName,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show progress until it is up to date.")] = False,
    as_json: AsJson = False,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Show how far a topic is indexed, how fast, by which model, and what it takes."""
    from broker.cli.connect import searcher

    with searcher(bootstrap) as client:
        found = client.status(topic)
        if watch and not as_json:
            _watch(client, topic, found)
            return
    if as_json:
        typer.echo(json.dumps(_document(topic, found), indent=2))
        return
    from broker.cli.tables import console

    console().print(_shown(topic, found))


def _watch(client: Any, topic: str, found: Any) -> None:
    from rich.live import Live

    from broker.cli.tables import console

    out = console()
    if not sys.stdout.isatty():
        while not _up_to_date(found):
            out.print(_progress(found))
            time.sleep(WATCH_INTERVAL_S)
            found = client.status(topic)
        out.print(_shown(topic, found))
        return
    with Live(_shown(topic, found), console=out, auto_refresh=False) as live:
        while not _up_to_date(found):
            time.sleep(WATCH_INTERVAL_S)
            found = client.status(topic)
            live.update(_shown(topic, found), refresh=True)


def _up_to_date(found: Any) -> bool:
    # A partition whose index is not open yet may lack records that no lag tells of.
    return not found.lag and bool(found.complete) and not found.trouble


def _shown(topic: str, found: Any) -> Any:
    from rich.console import Group
    from rich.text import Text

    model = f"{found.model}, {found.dimensions} dimensions, {found.metric}" if found.dimensions else str(found.model)
    lines: list[Any] = [Text(f"{topic}  {_state(found)}  ·  {model}", style="bold")]
    if found.trouble:
        lines.append(Text(found.trouble, style="red"))
    lines.append(Text(_progress(found)))
    detail = found.detail or {}
    lines += [Text(line) for line in (_cost(detail), *_generations(detail), _objects(detail), _workers(detail)) if line]
    lines += [Text(line, style="yellow") for line in _damages(detail)]
    return Group(*lines, Text(""), _partitions(found))


def _state(found: Any) -> str:
    if found.lag:
        return f"{found.lag:,} record{'s' if found.lag != 1 else ''} to go"
    return "up to date" if _up_to_date(found) else "not up to date"


def _progress(found: Any) -> str:
    detail = found.detail or {}
    done = detail.get("progress", 0.0 if found.lag else 1.0)
    full = int(done * _BAR_WIDTH)
    parts = [f"{'█' * full}{'░' * (_BAR_WIDTH - full)} {100 * done:5.1f} %"]
    if found.lag:
        parts.append(f"{found.lag:,} to go")
        eta_s = detail.get("eta_s")
        parts.append(f"about {_duration(eta_s)} left" if eta_s is not None else "no progress at the moment")
    if detail.get("rate_per_s"):
        parts.append(f"{detail['rate_per_s']:,.0f} records/s")
    return " · ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _cost(detail: Any) -> str:
    """What has been embedded and what that takes: for people who pay for tokens and memory."""
    parts = []
    embedder = detail.get("embedder")
    if embedder:
        parts.append(f"{embedder['texts_embedded']:,} texts embedded in {embedder['calls']:,} calls")
        about = "about " if embedder.get("tokens_estimated", True) else ""
        parts.append(f"{about}{embedder.get('tokens', 0):,} tokens")
    if detail.get("saved_by_dedupe"):
        parts.append(f"{detail['saved_by_dedupe']:,} records needed none")
    if detail.get("disk_bytes") or detail.get("memory_bytes"):
        parts.append(f"{_size(detail['memory_bytes'])} of memory, {_size(detail['disk_bytes'])} on disk")
    if detail.get("sampled_recall_at_10") is not None:
        parts.append(f"recall@10 {detail['sampled_recall_at_10']:.3f} (sampled)")
    return " · ".join(parts)


def _generations(detail: Any) -> list[str]:
    """The one that is built beside the one that is searched, and the one that was before it."""
    generations = detail.get("generations") or {}
    lines = []
    building, previous = generations.get("building"), generations.get("previous")
    if building:
        parts = [f"generation {building['generation']} is built: {building['identity']['model']}"]
        parts.append(f"{building['progress']:.1%} of {building['records']:,} records")
        if building["eta_s"] is not None and building["progress"] < 1:
            parts.append(f"about {_duration(building['eta_s'])} left")
        if building["trouble"]:
            parts.append(building["trouble"])
        elif building["progress"] >= 1 and building["waits_for_command"]:
            parts.append("`senselog vector cutover` searches it")
        lines.append(" · ".join(parts))
    if previous and not (building and building["generation"] == previous["generation"]):
        lines.append(
            f"generation {previous['generation']} is kept: {previous['identity']['model']}; `senselog vector rollback`"
        )
    return lines


def _objects(detail: Any) -> str:
    """Where the index is kept beside the broker's disk, and what is wrong there."""
    objects = detail.get("objects")
    if not objects:
        return ""
    return f"kept in {objects['url']} too" + (f", which is behind: {objects['trouble']}" if objects["trouble"] else "")


def _damages(detail: Any) -> list[str]:
    """What was found broken when the indexes were opened, and is made anew from the log."""
    rows = detail.get("partitions", ())
    return [f"partition {row['partition']}, damaged: {damage}" for row in rows for damage in row.get("damages", ())]


def _workers(detail: Any) -> str:
    """What each of several does, and how much memory there is, where that is bounded."""
    workers = detail.get("workers") or []
    told = []
    for number, worker in enumerate(workers):
        parts = [f"worker {number} {worker['state']}" + (f" at {worker['address']}" if worker.get("address") else "")]
        if worker.get("memory_limit_bytes"):
            parts.append(f"{_size(worker['memory_bytes'])} of {_size(worker['memory_limit_bytes'])} of memory")
        if len(workers) > 1 or len(parts) > 1:
            told.append(", ".join(parts))
    return " · ".join(told)


def _size(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _partitions(found: Any) -> Any:
    from broker.cli.tables import table

    offsets = ("partition", "log start", "end", "indexed", "to go", "failed", "lag ms", "records/s")
    columns = (*offsets, "segments", "memory", "disk", "recall@10")
    several = len((found.detail or {}).get("workers") or ()) > 1
    shown = table(*((column, "right") for column in (*columns, *(["worker"] if several else []))))
    rows = {row["partition"]: row for row in (found.detail or {}).get("partitions", ())}
    for partition in found.freshness:
        row = rows.get(partition.partition, {})
        recall = row.get("sampled_recall_at_10")
        shown.add_row(
            str(partition.partition),
            str(partition.log_start_offset),
            str(partition.last_stable_offset),
            "–" if partition.indexed_offset < 0 else str(partition.indexed_offset),
            str(partition.lag),
            str(partition.failed),
            str(max(0, partition.lag_ms)),
            f"{row.get('rate_per_s', 0):,.0f}",
            str(len(row.get("segments", ()))),
            _size(row.get("memory_bytes", 0)),
            _size(row.get("disk_bytes", 0)),
            "–" if recall is None else f"{recall:.3f}",
            *([str(row.get("worker", "–"))] if several else []),
        )
    return shown


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
        "index": found.detail,
    }
