"""Tables on the terminal."""

import pytest

from stm_lab.cli.console import print_table

LITERAL = ["pip install '.[lab]'", "[bold]x[/bold]", "[/]", "[3, 64, 64]", ":smile:", "back\\", "\\[a]", "[link=x]"]


@pytest.mark.parametrize("text", LITERAL)
def test_a_table_shows_what_it_is_given(capsys, text):
    """In title, heads and cells: nothing is markup, nothing is lost."""
    print_table(f"title {text}", ("a", f"head {text}"), [(text, 1.0), (float("nan"), f"cell {text}")])
    said = capsys.readouterr().out
    assert all(f"{place}{text}" in said for place in ("title ", "head ", "cell ", "│ "))
    assert "1.00" in said
    assert "nan" not in said
