"""`senselog check`: is what lies in a data directory whole?"""

from pathlib import Path
from typing import Annotated

import typer

from broker.cli.failure import Failure

EXAMPLES = """
[bold]Example[/bold]

  senselog check ./data
  senselog check ./data --repair   [dim]# when the broker refuses to start[/dim]

The broker must be stopped. Without --repair nothing is changed. A damaged index is rebuilt from the log by itself when
the broker starts. A broker whose log or WAL misses something that was synced refuses to start; --repair sets the damaged
files aside as *.damaged, deletes nothing, and the broker starts without what they held.
"""


def check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The broker's data directory.", show_default=False)],
    repair: Annotated[
        bool, typer.Option("--repair", help="Set aside what keeps the broker from starting.", show_default=False)
    ] = False,
) -> None:
    """Check the log and the indexes in a data directory. Exit code 1 if something is damaged."""
    if not directory.is_dir():
        raise Failure(f"there is no directory {directory}")
    if repair:
        _repair(directory)
        return
    from storage.check import check_directory
    from vector.check import check_index

    problems = [*check_directory(directory), *check_index(directory)]
    for problem in problems:
        typer.echo(str(problem))
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{directory}: no problems found")


def _repair(directory: Path) -> None:
    from storage.errors import CorruptStorage
    from storage.repair import repair_directory

    try:
        steps = repair_directory(directory)
    except CorruptStorage as error:
        raise Failure(
            f"{error.path}: {error.reason}. This cannot be repaired; restore the directory from a copy."
        ) from error
    if steps is None:
        typer.echo(f"{directory}: nothing keeps the broker from starting")
        return
    for step in steps:
        typer.echo(str(step))
    typer.echo(f"{directory}: repaired; the broker starts without what is missing, and says what that was")
