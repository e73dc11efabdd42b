"""`stm-lab ...`: a thin shell around the package. Each command imports what it needs when it runs.

Exit status: 0 done; 2 the input was wrong, one line on stderr, nothing started; 1 the work failed; 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings

import typer

from stm_lab.cli import course, data, doctor, models, results, runs, tasks
from stm_lab.util.devices import keep_freed_memory
from stm_lab.util.errors import UserError, WorkFailed, one_line
from stm_lab.util.files import said_by
from stm_lab.util.progress import write_to_any_console

app = typer.Typer(
    help="Spatial token mixers in one backbone, trained alike, then compared.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (doctor.doctor, runs.demo, runs.run, runs.sweep, models.mixers, models.models, models.train):
    app.command()(command)
for command in (tasks.tasks, results.leaderboard, results.compare, results.predict):
    app.command()(command)
app.add_typer(course.app, name="course")
app.add_typer(data.app, name="data")
app.add_typer(data.bench, name="bench")

_UsageError = typer.BadParameter.__base__  # click's; newer typer carries its own copy of click


def main(arguments: list[str] | None = None) -> int:
    """The console entry; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    write_to_any_console()
    keep_freed_memory()
    formatted, warnings.formatwarning = warnings.formatwarning, _as_a_line
    try:
        status = app(arguments or ["--help"], prog_name="stm-lab", standalone_mode=False) or 0
        return _complain("interrupted", 130) if status == 130 else status  # typer turns some interrupts into statuses
    except UserError as error:
        return _complain(f"error: {error}", 2)
    except WorkFailed as error:
        return _complain(f"failed: {error}", 1)
    except OSError as error:  # of a disk, folder or network: a traceback adds nothing
        return _complain(f"failed: {said_by(error)}", 1)
    except _UsageError as error:
        return _complain(f"error: {error.format_message()}", 2)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", 130)
    finally:
        warnings.formatwarning = formatted


def _as_a_line(message: Warning | str, *_: object) -> str:
    """A warning as the user sees it, without the place in our code."""
    return f"warning: {one_line(str(message))}\n"


def _complain(message: str, status: int) -> int:
    print(one_line(message), file=sys.stderr)
    return status
