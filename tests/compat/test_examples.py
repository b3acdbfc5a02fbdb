"""The programs of docs/examples.md, run as they stand there but for the address."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.broker_process import ROOT
from tests.compat.driver import DRIVERS
from tests.compat.roster import KAFKA

PAGE = (ROOT / "docs" / "examples.md").read_text()
EXAMPLES = re.findall(r"^## (.*?)\n.*?^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def command(language: str, code: str, directory: Path) -> list[str]:
    """How a program of a language is run; skips where its tool is missing."""
    if language == "bash":
        tool, run = "kcat", ["bash", "-euo", "pipefail", "-c", code]
    elif language == "python":
        tool, run = sys.executable, [sys.executable, "-c", code]
    elif language == "javascript":
        tool, run = "node", ["node", "--input-type=module", "-e", code]
    elif language == "java":
        (directory / "Example.java").write_text(code)
        tool, run = "javac", ["java", "-cp", f"{KAFKA.parent / 'libs'}/*", str(directory / "Example.java")]
        if not KAFKA.exists():
            pytest.skip(f"no Apache Kafka at {KAFKA} (set KAFKA_LAUNCHER)")
    else:
        if "FRANZ_GO" not in os.environ:
            pytest.skip("set FRANZ_GO to a checkout of franz-go that the Go tool (GO) can build")
        (directory / "main.go").write_text(code)
        tool = os.environ.get("GO", "go")
        run = [tool, "run", str(directory / "main.go")]
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool}")
    return run


@pytest.mark.parametrize(("title", "language", "code"), EXAMPLES, ids=[title for title, _, _ in EXAMPLES])
def test_example(bootstrap: str, tmp_path: Path, title: str, language: str, code: str) -> None:
    """It ends by itself, well, and has printed a record."""
    run = command(language, code.replace("localhost:9092", bootstrap), tmp_path)
    cwd = Path(os.environ["FRANZ_GO"]) if language == "go" else DRIVERS
    done = subprocess.run(run, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "connection to db-7 refused" in done.stdout


def test_every_client_has_an_example() -> None:
    """The page shows what the README promises."""
    assert [title for title, _, _ in EXAMPLES] == [
        "kcat",
        "Python: confluent-kafka",
        "Python: kafka-python",
        "Python: aiokafka",
        "Java",
        "Go: franz-go",
        "Node: kafkajs",
        "Node: @platformatic/kafka",
    ]
