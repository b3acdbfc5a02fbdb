"""`python -m tests.faults --records N`: what a day of faults leaves behind, `make faults`."""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.faults.day import Day


def main() -> None:
    """Exits with 1 when something is lost."""
    parser = argparse.ArgumentParser(prog="tests.faults", description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="senselog-faults-") as directory:
        day = Day(Path(directory), records=options.records, seed=options.seed)
        print(json.dumps(asdict(day.run()), indent=2))


if __name__ == "__main__":
    main()
