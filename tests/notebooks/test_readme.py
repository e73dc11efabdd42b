"""The README's table of the course is made from the cards, and every file and command that it names is there."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from stm_lab import cli
from stm_lab.paths import notebooks_dir

README = Path(__file__).resolve().parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_the_course_table_is_that_of_the_cards(capsys):
    assert cli.main(["course", "list", "--markdown"]) == 0
    assert notebooks_dir() == README.parent / "notebooks"
    assert capsys.readouterr().out.strip() in TEXT, "`stm-lab course list --markdown` prints the table"


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT))))
def test_links_lead_to_files(link):
    assert (README.parent / link).exists()


def _commands() -> list[str]:
    spans = re.findall(r"`(stm-lab [^`]+)`", TEXT)
    lines = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
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
