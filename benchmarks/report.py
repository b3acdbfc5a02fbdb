"""Results of a run: JSON for machines, a table for people."""

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

LIBRARIES = ("kafka-python", "confluent-kafka", "uvloop", "faiss-cpu", "onnxruntime", "numpy")


@dataclass(slots=True)
class Result:
    """One measured figure set: `figures` maps a name with its unit to a number."""

    load: str
    broker: str
    figures: dict[str, float] = field(default_factory=dict)


def machine() -> dict[str, object]:
    """What was measured on: processor, cores, memory, versions, commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "",
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "commit": commit,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def number(value: float) -> str:
    """Three significant digits, thousands in full."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show(results: list[Result], *, title: str, as_json: bool) -> None:
    """Prints the results to standard output."""
    if as_json:
        print(
            json.dumps(
                {"title": title, "machine": machine(), "results": [asdict(result) for result in results]}, indent=1
            )
        )
        return
    table = Table(title=title, title_justify="left")
    for name in ("load", "broker", "figure", "value"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for result in results:
        for index, (figure, value) in enumerate(result.figures.items()):
            table.add_row(result.load if not index else "", result.broker if not index else "", figure, number(value))
        table.add_section()
    Console(width=120).print(table)
