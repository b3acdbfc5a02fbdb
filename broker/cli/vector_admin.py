"""`senselog vector failures|retry|pause|resume|reembed|cutover|rollback`: the index of a topic, administered over HTTP."""

import json
import os
import time
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote

import typer

from broker.cli.failure import Failure
from broker.cli.options import AsJson, TopicName

DEFAULT_HTTP = "127.0.0.1:8092"
USER_VARIABLE = "SENSELOG_HTTP_USER"
_TIMEOUT_S = 90.0
_POLL_S = 0.25
_PAGE = 1000
_BEGIN_S = 60.0
"""A build begins once its model is open; without one by then, what keeps it back is said."""

Http = Annotated[
    str,
    typer.Option(
        "--http",
        envvar="SENSELOG_HTTP",
        metavar="HOST:PORT",
        help=f"The broker's HTTP port, or its https:// address; where it asks for a user, {USER_VARIABLE} holds NAME:PASSWORD.",
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end, with a progress bar.")]

REEMBED_EXAMPLES = """
[bold]Examples[/bold]

  senselog vector reembed logs --model openai:text-embedding-3-small --wait
  senselog vector reembed logs --field '{$.title}: {$.body}' --manual
  senselog vector cutover logs

The next generation of the index is built from the log beside the one that is searched. What has the same vectors in both is not
embedded again. The one before is kept for a day (vector.generation.retention.ms): `senselog vector rollback` goes back to it.
"""


class _Index:
    """A topic's index at the broker's HTTP port."""

    def __init__(self, http: str, topic: str) -> None:
        address = http if "://" in http else f"http://{http}"
        self._base = f"{address.rstrip('/')}/v1/topics/{quote(topic, safe='')}/vector"
        self._http = http

    def get(self, what: str = "", **parameters: Any) -> Any:
        return self._ask("GET", what, params=parameters)

    def post(self, what: str, **body: Any) -> Any:
        return self._ask("POST", what, json={name: value for name, value in body.items() if value is not None})

    def _ask(self, method: str, what: str, **options: Any) -> Any:
        import httpx

        user, _, password = os.environ.get(USER_VARIABLE, "").partition(":")
        try:
            answer = httpx.request(
                method, self._base + what, auth=(user, password) if user else None, timeout=_TIMEOUT_S, **options
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Failure(f"no broker answers at {self._http}: {error}. Give its HTTP port with --http") from None
        if answer.is_success:
            return answer.json() if answer.content else None
        try:
            raise Failure(answer.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            raise Failure(f"{self._http} answered {answer.status_code}") from None


def failures(
    topic: TopicName,
    partition: Annotated[int | None, typer.Option("--partition", "-p", help="Of this partition alone.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 100,
    as_json: AsJson = False,
    http: Http = DEFAULT_HTTP,
) -> None:
    """List the records that could not be indexed, and why."""
    index = _Index(http, topic)
    found: list[dict[str, Any]] = []
    after: dict[str, int] = {}
    total = 0
    while len(found) < limit:
        page = index.get(
            "/failures",
            limit=min(_PAGE, limit - len(found)),
            **after,
            **({} if partition is None else {"partition": partition}),
        )
        found += page["failures"]
        total = page["total"]
        if page["next"] is None:
            break
        after = {"after_partition": page["next"][0], "after_offset": page["next"][1]}
    if as_json:
        typer.echo(json.dumps({"total": total, "failures": found}, indent=2))
        return
    from broker.cli.tables import console, readable, table

    out = console()
    if not found:
        out.print(f"{topic}: no record has failed", markup=False)
        return
    shown = table(("partition", "right"), ("offset", "right"), ("generation", "right"), "model", "reason")
    for entry in found:
        records = entry["records"]
        offset = str(entry["offset"]) if records == 1 else f"{entry['offset']} (+{records - 1})"
        reason = readable(entry["reason"].encode())
        shown.add_row(str(entry["partition"]), offset, str(entry["generation"]), entry["model"] or "", reason)
    out.print(shown)
    if total > len(found):
        out.print(f"{len(found)} of {total}; --limit shows more", markup=False)


def retry(topic: TopicName, wait: Wait = False, http: Http = DEFAULT_HTTP) -> None:
    """Try again to index what failed; all else keeps its vectors, and searches go on."""
    index = _Index(http, topic)
    before = index.get()
    if not before.get("failed"):
        typer.echo(f"{topic}: no record has failed")
        return
    index.post("/retry")
    _follow(index, topic, before, wait=wait)
    if wait:
        left = index.get()["failed"]
        typer.echo(f"{before['failed'] - left:,} mended, {left:,} failed again")


def pause(topic: TopicName, http: Http = DEFAULT_HTTP) -> None:
    """Stop indexing, over restarts too; producing and searching go on."""
    _Index(http, topic).post("/pause")
    typer.echo(f"{topic}: indexing is paused; `senselog vector resume {topic}` goes on")


def resume(topic: TopicName, http: Http = DEFAULT_HTTP) -> None:
    """Go on indexing."""
    _Index(http, topic).post("/resume")
    typer.echo(f"{topic}: indexing goes on")


def reembed(
    topic: TopicName,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The new model, such as local:NAME.")] = None,
    field: Annotated[str | None, typer.Option("--field", help="What is embedded from now on.")] = None,
    dimensions: Annotated[int | None, typer.Option("--dimensions", min=0, help="0: the model's own.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="cosine, dot or l2.")] = None,
    long_text: Annotated[str | None, typer.Option("--long-text", help="chunk, truncate or skip.")] = None,
    manual: Annotated[bool, typer.Option("--manual", help="Search the old one until `cutover`.")] = False,
    wait: Wait = False,
    http: Http = DEFAULT_HTTP,
) -> None:
    """Build the next generation of the index from the log, and search it once it is complete."""
    index = _Index(http, topic)
    before = index.get()
    cutover = "manual" if manual else "auto"
    index.post(
        "/reembed",
        model=model,
        field=field,
        dimensions=dimensions,
        metric=metric,
        long_text=long_text,
        cutover=cutover,
    )
    _follow(index, topic, before, wait=wait)


def cutover(topic: TopicName, http: Http = DEFAULT_HTTP) -> None:
    """Search the generation that is being built, complete or not."""
    index = _Index(http, topic)
    index.post("/cutover")
    typer.echo(f"{topic}: generation {index.get()['generation']} is searched")


def rollback(topic: TopicName, wait: Wait = False, http: Http = DEFAULT_HTTP) -> None:
    """Search the previous generation again, as soon as it has caught up with the log."""
    index = _Index(http, topic)
    before = index.get()
    index.post("/rollback")
    _follow(index, topic, before, wait=wait)


def _follow(index: _Index, topic: str, before: dict[str, Any], *, wait: bool) -> None:
    """Says what has begun, or shows it until it is done."""
    if not wait:
        typer.echo(f"{topic}: it goes on in the background; `senselog vector status {topic}` shows how far it is")
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from broker.cli.tables import console

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(), transient=False) as progress:
        task = progress.add_task("waiting for the model", total=None)
        end = _watch(index, before, lambda **shown: progress.update(task, **shown))
    typer.echo(f"{topic}: {end}")


def _watch(index: _Index, before: dict[str, Any], show: Callable[..., None]) -> str:
    began, seen = time.monotonic(), False
    while True:
        status = index.get()
        building = (status.get("generations") or {}).get("building")
        if building is None:
            if status["generation"] != before["generation"]:
                return f"generation {status['generation']} is searched: {status['model']}"
            if seen or time.monotonic() - began > _BEGIN_S:
                raise Failure(
                    f"nothing is being built: {status.get('reason') or 'the index is what was asked for already'}"
                )
        else:
            seen = True
            trouble = f" ({building['trouble']})" if building["trouble"] else ""
            show(
                description=f"generation {building['generation']}{trouble}",
                total=building["records"],
                completed=building["done"],
            )
            if building["waits_for_command"] and building["progress"] >= 1:
                return f"generation {building['generation']} is complete; `senselog vector cutover` searches it"
        time.sleep(_POLL_S)
