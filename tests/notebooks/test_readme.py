"""The manuals: tables of the course are those of the cards, and every file and command that is named exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from stm_lab import cli
from stm_lab.course import load_cards

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
MANUALS = [README, *(ROOT / part / "README.md" for part in ("notebooks", "data_recipes", "stm_lab"))]
MANUALS += [ROOT / "CONTRIBUTING.md", ROOT / "notebooks" / "RESULTS.md", ROOT / "notebooks" / "GALLERY.md"]
TEXTS = {path: path.read_text(encoding="utf-8") for path in MANUALS}
LINKS = {(path, link) for path, text in TEXTS.items() for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)}


def test_the_table_of_the_course_is_that_of_the_cards(capsys):
    assert cli.main(["course", "list", "--markdown"]) == 0
    table = capsys.readouterr().out.strip()
    assert table in TEXTS[ROOT / "notebooks" / "README.md"], "`stm-lab course list --markdown` prints the table"
    for card in load_cards().values():
        assert f"| {card.number} | [{card.title}](notebooks/{card.name}.ipynb) | {card.question} |" in TEXTS[README]


def test_the_readme_is_read_in_minutes():
    assert len(README.read_bytes()) <= 8192


@pytest.mark.parametrize(("manual", "link"), sorted(LINKS), ids=str)
def test_links_lead_to_files(manual, link):
    assert (manual.parent / link).exists()


def _commands() -> list[str]:
    text = "\n".join(TEXTS.values())
    spans = re.findall(r"`(stm-lab [^`]+)`", text)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return sorted({part.strip() for part in spans} | {line for line in lines if line.startswith("stm-lab ")})


@pytest.mark.parametrize("command", _commands())
def test_commands_and_their_options_exist(command):
    """Of each `stm-lab ...` the subcommand and the names of its options; that they work is tested elsewhere."""
    words = shlex.split(command.partition(" #")[0].replace("...", ""))[1:]
    group = typer.main.get_command(cli.app)
    while words and hasattr(group, "commands"):
        assert words[0] in group.commands, f"no {words[0]!r} among {', '.join(group.commands)}"
        group = group.commands[words.pop(0)]
    known = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in known
