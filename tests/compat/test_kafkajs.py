"""kafkajs 2.2: codecs, groups through rebalances, commits, admin calls."""

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent / "kafkajs"
PARTITIONS = 4


@pytest.fixture(scope="module")
def seen(bootstrap: str) -> dict[str, list[list[int | str]]]:
    """What one round of kafkajs saw."""
    if shutil.which("node") is None:
        pytest.skip("no node")
    assert (HERE / "node_modules" / "kafkajs").is_dir(), "run scripts/compat.sh, which installs kafkajs"
    done = subprocess.run(
        ["node", "round.js", bootstrap], cwd=HERE, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_codec(seen: dict[str, list[list[int | str]]], codec: str) -> None:
    """Every record comes back with key, value and header, in order."""
    assert seen[codec] == [[0, n, f"key-{n % 7}", f"value {n}", str(n)] for n in range(300)]


def test_group(seen: dict[str, list[list[int | str]]]) -> None:
    """Two members share the partitions; nothing is read twice; a third resumes where they committed."""
    first, second = (set(partitions) for partitions in seen["shared"])
    assert first | second == set(range(PARTITIONS))
    assert not first & second
    assert sorted(map(tuple, seen["group"])) == sorted(itertools.product(range(PARTITIONS), range(100)))
    assert sorted(map(tuple, seen["resumed"])) == sorted(itertools.product(range(PARTITIONS), range(100, 110)))
