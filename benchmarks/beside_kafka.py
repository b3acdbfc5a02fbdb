"""`make bench-kafka`: the same loads against Senselog and Apache Kafka, one after the other, pinned alike; prints the ratios."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import loads
from benchmarks.brokers import ROOT, Broker, apache_kafka, client_cores, senselog
from benchmarks.report import Result, number, show

# Figures of which less is better: the ratio is turned round, so that above 1 always means that Senselog is ahead.
LESS_IS_BETTER = ("CPU", "p50", "p99")


def launcher() -> Path:
    """The script that starts Apache Kafka; `KAFKA_LAUNCHER` overrides the one beside the repository."""
    return Path(os.environ.get("KAFKA_LAUNCHER", ROOT.parent / "shared" / "kafka" / "kafka"))


def durable(broker: Broker, *, scale: float) -> list[Result]:
    """Acks of 100 connections, each ack synced to disk."""
    return [loads.acks(broker, connections=100, requests=max(int(40_000 * scale), 1_000), label="synced")]


def ratios(ours: Sequence[Result], theirs: Sequence[Result]) -> list[tuple[str, str, float, float, float]]:
    """(load, figure, ours, theirs, how many times better ours is) for every figure of both."""
    rows = []
    for mine, other in zip(ours, theirs, strict=True):
        for figure, value in mine.figures.items():
            better = (
                other.figures[figure] / value
                if any(word in figure for word in LESS_IS_BETTER)
                else value / other.figures[figure]
            )
            rows.append((mine.load, figure, value, other.figures[figure], better))
    return rows


def main() -> int:
    """Runs both brokers and shows their figures side by side."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside_kafka", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full load (default 1)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    chosen = parser.parse_args()
    console = Console(stderr=True)
    if not launcher().exists():
        console.print(
            f"No Apache Kafka at {launcher()}. Set KAFKA_LAUNCHER to a script that answers `up PORT \\[property=value…]` by starting a fresh "
            "broker and printing its process id, and `down` by stopping it; or measure any running broker with "
            "`python -m benchmarks --bootstrap HOST:PORT --pid PID`."
        )
        return 2
    cores = os.sched_getaffinity(0)
    ours: list[Result] = []
    theirs: list[Result] = []
    console.print("Senselog …")
    for settings, run in ((("storage.sync=os",), loads.broker_loads), (("storage.sync=always",), durable)):
        with senselog(settings) as broker:
            os.sched_setaffinity(0, client_cores())
            ours += run(broker, scale=chosen.scale)
        os.sched_setaffinity(0, cores)
    console.print("Apache Kafka …")
    for properties, run in (((), loads.broker_loads), (("log.flush.interval.messages=1",), durable)):
        with apache_kafka(launcher(), properties) as broker:
            os.sched_setaffinity(0, client_cores())
            theirs += run(broker, scale=chosen.scale)
        os.sched_setaffinity(0, cores)
    if chosen.json:
        show([*ours, *theirs], title="Beside Apache Kafka", as_json=True)
        return 0
    table = Table(title="Beside Apache Kafka (above 1: Senselog is ahead)", title_justify="left")
    for name in ("load", "figure", "Senselog", "Apache Kafka", "times better"):
        table.add_column(name, justify="left" if name in {"load", "figure"} else "right")
    for load, figure, mine, other, better in ratios(ours, theirs):
        table.add_row(load, figure, number(mine), number(other), f"{better:.2f}")
    Console(width=140).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
