"""`senselog check`: is what lies in a data directory whole?"""

from pathlib import Path
from typing import Annotated

import typer

from broker.cli.failure import Failure

EXAMPLES = """
[bold]Example[/bold]

  senselog check ./data

Reads only; the broker must be stopped. A damaged index is rebuilt from the log by itself when the broker starts;
a damaged log is not, so its problems are named with their file.
"""


def check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The broker's data directory.", show_default=False)],
) -> None:
    """Check the log and the indexes in a data directory. Exit code 1 if something is damaged."""
    if not directory.is_dir():
        raise Failure(f"there is no directory {directory}")
    from storage.check import check_directory

    from vector.check import check_index

    problems = [*check_directory(directory), *check_index(directory)]
    for problem in problems:
        typer.echo(str(problem))
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{directory}: no problems found")
