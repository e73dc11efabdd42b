"""`stm-lab course ...`: the notebooks as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stm_lab.cli.console import print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stm_lab.course.cards import Card, Parameter

app = typer.Typer(help="The course's notebooks.")

Notebooks = Annotated[list[str], typer.Argument(metavar="[NOTEBOOK]...", help="Names or numbers; default: all.")]


@app.command("list")
def course_list(
    markdown: Annotated[bool, typer.Option(help="As the table of the course's README, with links.")] = False,
) -> None:
    """List the notebooks of the course in the working folder, if it has one, else of the shipped course."""
    from stm_lab.course.cards import dots, load_cards
    from stm_lab.util import paths

    cards = load_cards().values()
    if markdown:
        print(_markdown(cards))
        return
    lines = [
        (card.number, card.title, card.minutes, dots(card.difficulty), ", ".join(card.resources))
        for card in cards
        if card.path.is_file()
    ]
    columns = ("no.", "title", "minutes", "difficulty", "profiles")
    print_table(f"notebooks in {paths.notebooks_dir()}", columns, lines)
    print("stm-lab course show NUMBER: what one asks, and its parameters")
    missing = [card.name for card in cards if not card.path.is_file()]
    if missing:
        print(f"not in this folder: {', '.join(missing)}")


@app.command("show")
def course_show(notebook: Annotated[str, typer.Argument(help="Name, number or path.")]) -> None:
    """Show one notebook's question, goals, parameters, profiles and exercises."""
    from stm_lab.course.cards import dots, literal, load_card

    card = load_card(notebook)
    print(f"{card.number} {card.title}\n{card.path}\n\n{card.question}\n")
    print("\n".join(f"- {goal}" for goal in card.goals))
    print(f"\n{card.minutes} minutes to read, difficulty {dots(card.difficulty)}\n")
    parameters = [
        (name, parameter.type, literal(parameter.default), _allowed(parameter), parameter.help)
        for name, parameter in card.parameters.items()
    ]
    print_table("parameters (-p NAME=VALUE)", ("name", "type", "default", "allowed", "what it is"), parameters)
    profiles = []
    for profile, takes in card.resources.items():
        values = ", ".join(f"{name}={literal(value)}" for name, value in card.profiles.get(profile, {}).items())
        costs = (f"{takes.minutes:g}", f"{takes.memory_gb:g}", takes.cpus, f"{takes.gpus:g}")
        profiles.append((profile, *costs, values or "the defaults"))
    print_table("profiles", ("profile", "minutes", "GB", "CPUs", "GPUs", "parameters"), profiles)
    if card.exercises:
        exercises = [
            (number, exercise.title, dots(exercise.difficulty), dots(exercise.importance), exercise.minutes)
            for number, exercise in enumerate(card.exercises, 1)
        ]
        print_table("exercises", ("no.", "title", "difficulty", "importance", "minutes"), exercises)
    print("\n".join(["what a run leaves:", *(f"- {output}" for output in card.outputs)]))


def _allowed(parameter: Parameter) -> str:
    """The values that a parameter may have, in words; "" for any of its type."""
    if parameter.choices is not None:
        named = isinstance(parameter.choices, str)
        return f"any of the {parameter.choices}" if named else ", ".join(map(str, parameter.choices))
    ends = zip(("from", "to"), parameter.range or (), strict=False)
    return " ".join(f"{word} {end:.15g}" for word, end in ends if end is not None)


def _markdown(cards: Iterable[Card]) -> str:
    """Reading time, time of the quick run, and exercises, as the cards say."""
    lines = ["| no. | notebook | question | reading | quick run | exercises |", "|---|---|---|---|---|---|"]
    for card in cards:
        link = f"[{card.title}]({card.name}.ipynb)"
        seconds = f"{60 * card.resources['quick'].minutes:.0f} s"
        minutes = sum(exercise.minutes for exercise in card.exercises)
        exercises = f"{len(card.exercises)}, {minutes} min" if card.exercises else ""
        lines.append(f"| {card.number} | {link} | {card.question} | {card.minutes} min | {seconds} | {exercises} |")
    return "\n".join(lines)


@app.command("copy")
def course_copy(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Target folder; created if missing.")],
    notebooks: Notebooks = [],  # noqa: B006  (typer reads it, nobody changes it)
    force: Annotated[bool, typer.Option(help="Overwrite files that differ.")] = False,
) -> None:
    """Write the shipped course to a folder for learners, without the solutions of exercises."""
    from stm_lab.course.copy import copy_course

    written = copy_course(folder, notebooks, force=force)
    for path in written:
        print(path)
    print(f"{len(written)} files written" if written else "all there already")


@app.command("html")
def course_html(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Target folder; created if missing.")],
    notebooks: Notebooks = [],  # noqa: B006
    profile: Annotated[str, typer.Option(help="The profile of the runs that are shown.")] = "quick",
    solutions: Annotated[bool, typer.Option(help="Show the solutions of exercises, folded.")] = False,
) -> None:
    """Write the executed course as a static site; open DIR/index.html.

    Notebooks that have not been run are run first, one after another: `course show` says how long each takes.
    """
    from stm_lab.course.site import write_site

    pages = write_site(folder, notebooks, profile=profile, solutions=solutions, echo=sys.stderr)
    print(f"{len(pages)} pages written: {pages[0]}")


@app.command("sync")
def course_sync(
    notebooks: Notebooks = [],  # noqa: B006
    check: Annotated[bool, typer.Option(help="Change nothing; exit with 1 if something differs.")] = False,
) -> None:
    """Write the header and parameters cells of the notebooks from their cards."""
    from stm_lab.course.cards import load_card, load_cards
    from stm_lab.course.notebooks import differences

    cards = [load_card(notebook) for notebook in notebooks] or list(load_cards().values())
    found = [(card, differences(card)) for card in cards]  # of all, before anything is written
    for card, lines in found:
        for line in lines:
            print(f"{card.name}: {line}")
        if lines and not check:
            differences(card, mend=True)
    count = sum(bool(lines) for _, lines in found)
    done = "differ" if check else "written"
    print(f"{count} of {len(found)} notebooks {done}" if count else "all as their cards say")
    if count and check:
        raise typer.Exit(1)
