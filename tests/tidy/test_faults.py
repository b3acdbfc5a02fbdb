"""docs/faults.md: every fault seen elsewhere has an answer, and the tests it names exist and are run."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "faults.md").read_text()
COUNTS = {"F": 11, "U": 21, "A": 21, "B": 18}
"""Rows of each table, by the letter of their names."""


def rows() -> dict[str, str]:
    """The answer to each fault, by its name."""
    found = re.findall(r"^\| ([A-Z]\d+) \|[^|]+\| ([^|]+) \|$", TABLE, re.MULTILINE)
    assert len(found) == len(dict(found))
    return dict(found)


def test_no_fault_is_left_out() -> None:
    assert set(rows()) == {f"{letter}{number}" for letter, count in COUNTS.items() for number in range(1, count + 1)}


def test_every_fault_has_a_test_or_a_reason() -> None:
    """All tests that are named are there."""
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    tests = set(re.findall(r"^\s*(?:async )?def (test_\w+)", "\n".join(sources), re.MULTILINE))
    for fault, answer in rows().items():
        named = set(re.findall(r"`(test_\w+)`", answer))
        assert named or answer.startswith("cannot: "), fault
        assert named <= tests, (fault, named - tests)


def test_no_test_is_out_of_reach() -> None:
    """`make test` runs all of `tests` but those that need other clients, which `make compat` runs; no suite is run by nobody."""
    makefile, compat = (ROOT / "Makefile").read_text(), (ROOT / "scripts" / "compat.sh").read_text()
    assert "pytest tests -q --ignore=tests/compat\n" in makefile
    assert "pytest tests/compat " in compat
    for path in (ROOT / "tests").rglob("*.py"):
        if re.search(r"^(?:async )?def test_", path.read_text(), re.MULTILINE):
            assert path.name.startswith("test_") or path.is_relative_to(ROOT / "tests" / "compat" / "drivers"), path
