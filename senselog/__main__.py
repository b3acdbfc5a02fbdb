"""Launcher: put Senselog's packages first on `sys.path`, then run the command line."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# Installed wheel: the packages live privately in senselog/_app. Checkout: beside us.
ROOT = _HERE / "_app" if (_HERE / "_app").is_dir() else _HERE.parent


def main() -> None:
    """Runs the `senselog` command; the entry point of `python -m senselog` and of the console script."""
    # First, not last: an editable install's .pth entry comes after site-packages, where another `vector` may live.
    sys.path.insert(0, str(ROOT))
    from broker.cli import main as run

    run()


if __name__ == "__main__":
    main()
