"""Writes docs/protocol-support.md from the API table; `--check` only says whether it is current."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from broker.registry import Api, load_handlers  # noqa: E402

PAGE = ROOT / "docs" / "protocol-support.md"
HEAD = """# Kafka APIs and versions

Generated from the API table (`python scripts/protocol_support.py`): what is advertised is implemented, and each API's handler module
says in its docstring what it does and where it deliberately differs. Versions that Kafka advertises without implementing (Produce 0 to 2,
which old librdkafka releases look for) are advertised as Kafka does and refused as Kafka does.

| key | API | versions | advertised | |
|--:|---|---|---|---|
"""


def row(entry: Api) -> str:
    """One line of the table: the first sentence of the handler module's docstring describes the API."""
    name = "".join(part.capitalize() for part in entry.key.name.split("_"))
    module = sys.modules[entry.handle.__module__]
    about = (module.__doc__ or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
    versions = f"{entry.min_version}–{entry.max_version}"
    advertised = f"{entry.advertised_from}–{entry.max_version}"
    return f"| {entry.key.value} | {name} | {versions} | {advertised} | {about} |\n"


def page() -> str:
    """The whole page."""
    return HEAD + "".join(row(entry) for _, entry in sorted(load_handlers().items()))


def main() -> int:
    """Writes the page, or with `--check` exits 1 when it is not current."""
    if "--check" in sys.argv:
        return int(not PAGE.exists() or PAGE.read_text() != page())
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
