"""The whole way in one go: produce real log lines with a client you know, consume them back, find them by meaning.

Talks to the broker at --bootstrap, or starts one of its own for the length of the demo when none listens there.
"""

import argparse
import contextlib
import itertools
import logging
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from senselog_client import IndexLoading, SearchError, SearchResult, SenselogClient

from broker.cli.search import freshness_line
from broker.cli.tables import readable, table

ROOT = Path(__file__).resolve().parents[1]
LOGHUB = ROOT.parent / "shared" / "data" / "loghub"
SAMPLE = ROOT / "scripts" / "sample"
PARTITIONS = 3
TIMEOUT_S = 30.0
INDEX_STALL_S = 300.0
SEARCHES = (
    "someone tries to guess a password",
    "a disk cannot be read or written",
    "the server ran out of memory",
    "lost the connection to another node",
    "a virtual machine was shut down",
)

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass
class Run:
    """What is produced, and where the broker put it."""

    topic: str
    bootstrap: str
    lines: list[tuple[str, bytes]]
    first_offsets: dict[int, int] = field(default_factory=dict)
    sent: dict[int, list[bytes]] = field(default_factory=lambda: {partition: [] for partition in range(PARTITIONS)})
    consumed: dict[tuple[int, int], bytes] = field(default_factory=dict)


def main() -> int:
    """Runs the demo; 0 when every line came back and every hit equals the log."""
    arguments = _arguments()
    try:
        lines = _read_lines()
        with _broker(arguments) as bootstrap:
            failed = _demo(Run(arguments.topic, bootstrap, lines), arguments.model)
            if bootstrap == arguments.bootstrap and not failed:
                _say_goodbye(arguments.topic)
            return failed
    except KeyboardInterrupt:
        return 130
    except (RuntimeError, KafkaException, SearchError) as error:
        console.print(f"[red]error:[/red] {error}")
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="logs")
    parser.add_argument("--model", help="embedding model of the topic; the broker's default if not given")
    return parser.parse_args()


def _demo(run: Run, model: str | None) -> int:
    console.print()
    _create_topic(run, model)
    with _progress() as progress:
        rate = _produce(run, progress)
        indexing = time.monotonic()
        _consume(run, progress)
        _wait_indexed(run, progress)
        indexed_s = time.monotonic() - indexing
    total = len(run.lines)
    console.print(
        f"  [green]✓[/green] {total:,} lines came back byte for byte and in order; produced at {rate:,.0f} lines/s, "
        f"all searchable {indexed_s:.1f} s after the last ack\n"
    )
    wrong = 0
    with SenselogClient(bootstrap_servers=run.bootstrap) as client:
        for question in SEARCHES:
            result = client.search(run.topic, question, limit=5, latest=True, max_wait_ms=10_000, timeout_ms=10_000)
            wrong += _show(run, question, result)
    if wrong:
        console.print(f"[red]{wrong} hits differ from the log[/red]")
        return 1
    return 0


def _read_lines() -> list[tuple[str, bytes]]:
    """(source, line), the files interleaved line by line as if all wrote at once."""
    folder = LOGHUB if LOGHUB.is_dir() else SAMPLE
    files = sorted(folder.glob("*.log"))
    columns = [[(file.stem.removesuffix("_2k"), line) for line in _lines(file)] for file in files]
    lines = [entry for row in itertools.zip_longest(*columns) for entry in row if entry is not None]
    console.print(f"\n[bold]Senselog demo[/bold]: {len(lines):,} log lines of {len(files)} source(s) in {folder}")
    return lines


def _lines(file: Path) -> list[bytes]:
    return [line.rstrip(b"\r") for line in file.read_bytes().rstrip(b"\n").split(b"\n")]


@contextlib.contextmanager
def _broker(arguments: argparse.Namespace) -> Iterator[str]:
    """The broker that listens at --bootstrap, or a short-lived one in a temporary directory."""
    host, _, port = arguments.bootstrap.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            pass
    except OSError:
        with _own_broker() as bootstrap:
            yield bootstrap
    else:
        console.print(f"Using the broker at [cyan]{arguments.bootstrap}[/cyan]")
        yield arguments.bootstrap


@contextlib.contextmanager
def _own_broker() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="senselog-demo-") as directory:
        command = [sys.executable, "-m", "senselog", "serve", "--data-dir", f"{directory}/data"]
        command += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
        log_file = Path(directory) / "broker.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            if "kafka=" not in ready:
                raise RuntimeError(f"the broker did not start: {ready}{log_file.read_text()[-2000:]}")
            bootstrap = ready.split("kafka=")[1].split()[0]
            console.print(
                f"No broker was running (`make run` keeps one): started one at [cyan]{bootstrap}[/cyan] for this demo"
            )
            yield bootstrap
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


def _create_topic(run: Run, model: str | None) -> None:
    admin = AdminClient({"bootstrap.servers": run.bootstrap, "log_level": 3})
    there = admin.list_topics(timeout=TIMEOUT_S).topics
    if run.topic not in there:
        config = {"vector.enabled": "true"} | ({"vector.embedding.model": model} if model else {})
        admin.create_topics([NewTopic(run.topic, PARTITIONS, config=config)])[run.topic].result(TIMEOUT_S)
        console.print(f"Created topic [cyan]{run.topic}[/cyan]: {PARTITIONS} partitions, vector.enabled=true\n")
        run.first_offsets = dict.fromkeys(range(PARTITIONS), 0)
        return
    if len(there[run.topic].partitions) < PARTITIONS:
        raise RuntimeError(f"topic {run.topic} exists with fewer than {PARTITIONS} partitions: choose another --topic")
    console.print(f"Topic [cyan]{run.topic}[/cyan] exists: adding to it\n")
    consumer = Consumer({"bootstrap.servers": run.bootstrap, "group.id": "senselog-demo"})
    for partition in range(PARTITIONS):
        _, end = consumer.get_watermark_offsets(TopicPartition(run.topic, partition), timeout=TIMEOUT_S)
        run.first_offsets[partition] = end
    consumer.close()


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(finished_text="[green]✓[/green]"),
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _produce(run: Run, progress: Progress) -> float:
    """Lines per second, from the first send to the last ack."""
    task = progress.add_task("Producing with confluent-kafka", total=len(run.lines))
    failures: list[str] = []

    def acked(error: object, _: object) -> None:
        if error is not None:
            failures.append(str(error))
        progress.advance(task)

    producer = Producer({"bootstrap.servers": run.bootstrap, "enable.idempotence": True, "linger.ms": 5})
    started = time.monotonic()
    for number, (source, line) in enumerate(run.lines):
        partition = number % PARTITIONS
        run.sent[partition].append(line)
        producer.produce(run.topic, value=line, key=source, partition=partition, on_delivery=acked)
        producer.poll(0)
    if producer.flush(TIMEOUT_S) or failures:
        raise RuntimeError(f"not every line was acknowledged: {failures[:1] or 'timed out'}")
    return len(run.lines) / (time.monotonic() - started)


def _consume(run: Run, progress: Progress) -> None:
    """Reads back what was produced; raises RuntimeError at the first line that differs."""
    task = progress.add_task("Consuming it back", total=len(run.lines))
    consumer = Consumer({"bootstrap.servers": run.bootstrap, "group.id": "senselog-demo", "enable.auto.commit": False})
    consumer.assign([TopicPartition(run.topic, partition, run.first_offsets[partition]) for partition in run.sent])
    expected = {partition: iter(lines) for partition, lines in run.sent.items()}
    left = len(run.lines)
    while left:
        messages = consumer.consume(min(left, 1000), timeout=TIMEOUT_S)
        if not messages:
            raise RuntimeError(f"{left} lines did not come back")
        for message in messages:
            if message.error():
                raise RuntimeError(str(message.error()))
            if message.value() != next(expected[message.partition()]):
                raise RuntimeError(f"{message.partition()}@{message.offset()} is not the line that was produced there")
            run.consumed[message.partition(), message.offset()] = message.value()
        left -= len(messages)
        progress.update(task, completed=len(run.consumed))
    consumer.close()


def _wait_indexed(run: Run, progress: Progress) -> None:
    """Follows indexed_offset, which every answer of a search states, up to the last produced offset."""
    task = progress.add_task("Embedding and indexing", total=len(run.lines))
    done, last_change = -1, time.monotonic()
    with SenselogClient(bootstrap_servers=run.bootstrap) as client:
        while not progress.tasks[task].finished:
            try:
                states = client.status(run.topic).freshness
            except IndexLoading:
                states = ()
            indexed = {state.partition: state.indexed_offset for state in states}
            now_done = sum(
                min(max(indexed.get(partition, 0) - first, 0), len(run.sent[partition]))
                for partition, first in run.first_offsets.items()
            )
            if now_done != done:
                done, last_change = now_done, time.monotonic()
            elif time.monotonic() - last_change > INDEX_STALL_S:
                raise RuntimeError(f"indexing stands still at {done:,} of {len(run.lines):,} lines")
            progress.update(task, completed=done)
            time.sleep(0.1)


def _show(run: Run, question: str, result: SearchResult) -> int:
    """Prints the hits; returns how many differ from the log."""
    shown: Table = table(("similarity", "right"), "source", ("record", "right"), "line")
    wrong = 0
    for hit in result:
        line = run.consumed.get((hit.partition, hit.offset))
        wrong += line is not None and line != hit.value
        similarity = f"[green]{hit.similarity:.3f}[/green]" if hit.similarity is not None else ""
        source = readable(hit.key)
        shown.add_row(
            similarity, f"[magenta]{source}[/magenta]", f"[cyan]{hit.partition}@{hit.offset}[/cyan]", _short(hit.value)
        )
    console.print(Panel.fit(f"[bold]“{question}”[/bold]", border_style="blue"))
    console.print(shown)
    console.print(f"[dim]{freshness_line(result)}[/dim]\n")
    return wrong


def _short(value: bytes | None) -> str:
    from rich.markup import escape

    text = readable(value)
    return escape(text if len(text) <= 160 else text[:159] + "…")


def _say_goodbye(topic: str) -> None:
    console.print("[bold]Try it yourself[/bold]")
    console.print(f'  .venv/bin/senselog search {topic} "your own words" --latest')
    console.print(
        f'  curl -s localhost:8092/v1/topics/{topic}/search -H content-type:application/json -d \'{{"query": "your own words"}}\''
    )
    console.print("  http://localhost:8092/docs\n")


if __name__ == "__main__":
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    sys.exit(main())
