"""The executed course as a static site: a page for each notebook, and a first page with the cards and a heading search.

nbconvert makes the pages. Widgets are shown by their still pictures, and the only script that is fetched is MathJax;
without it, formulas stay as they are typed.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import jinja2
import nbconvert

from stm_lab.course.cards import Card, dots, find_card, load_cards
from stm_lab.course.notebooks import TEMPLATES, tags, with_still_pictures
from stm_lab.course.run import Job, perform, plan
from stm_lab.util import paths
from stm_lab.util.files import replace_bytes, told

_HEADING = re.compile(r'<h([1-4]) id="([^"]*)">(.*?)<a class="anchor-link"', re.DOTALL)
_LINK = re.compile(r"\[([^\]]+)\]\((?:\./)?(\d\d_[a-z0-9_]+)\.ipynb(#[^)]*)?\)")


def write_site(
    target: Path,
    notebooks: Iterable[str | int] = (),
    *,
    profile: str = "quick",
    solutions: bool = False,
    echo: TextIO | None = None,
) -> list[Path]:
    """Run what has not been run, and write the pages; returns them, the first page first.

    Args:
        target: the folder; made if it does not exist. Pages of the same names are replaced.
        notebooks: names or numbers; default: all of the course.
        profile: of the runs that are shown.
        solutions: show the solutions of exercises, folded; else leave them out.
        echo: where to show the progress of runs.

    Raises UserError for an unknown notebook or profile, and a folder that cannot be written to; errors as `run` does.
    """
    cards = load_cards()
    chosen = {find_card(cards, notebook).name for notebook in notebooks} or set(cards)
    jobs = {name: plan(card, profile=profile) for name, card in cards.items() if name in chosen}
    target = paths.expanded(target).absolute()
    with told():
        target.mkdir(parents=True, exist_ok=True)
    for job in jobs.values():
        perform(job, echo=echo)

    pages, headings = [], []
    of_site = [cards[name] for name in jobs]
    for i, card in enumerate(of_site):
        beside = {"before": of_site[i - 1] if i else None, "after": of_site[i + 1] if i + 1 < len(of_site) else None}
        page = _page(jobs[card.name], beside, jobs, solutions)
        headings += _headings(page, card)
        pages.append(target / f"{card.name}.html")
        replace_bytes(pages[-1], page.encode())
    first = target / "index.html"
    replace_bytes(first, _contents(of_site, headings, profile).encode())
    return [first, *pages]


def _page(job: Job, beside: Mapping[str, Card | None], of_site: Mapping[str, Any], solutions: bool) -> str:
    """The executed notebook, with the site's bar above it."""
    notebook = with_still_pictures(job.folder.notebook)
    notebook.cells = [cell for cell in notebook.cells if solutions or "solution" not in tags(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _linked(cell.source, of_site)
    exporter = nbconvert.HTMLExporter(
        template_name="course",
        extra_template_basedirs=[str(TEMPLATES)],
        extra_template_paths=[str(TEMPLATES)],  # where `course` finds `still`, which it extends
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    resources = {
        "metadata": {"name": job.notebook},
        "course": {side: card and {"page": f"{card.name}.html", "title": card.title} for side, card in beside.items()},
    }
    return exporter.from_notebook_node(notebook, resources)[0]


def _linked(source: str, of_site: Mapping[str, Any]) -> str:
    """Markdown whose links to notebooks go to their pages, or are no links where the site has no such page."""

    def link(found: re.Match) -> str:
        text, name, anchor = found.groups(default="")
        return f"[{text}]({name}.html{anchor})" if name in of_site else text

    return _LINK.sub(link, source)


def _headings(page: str, card: Card) -> list[dict[str, str]]:
    """Where each heading of a page is, for the search."""
    return [
        {"text": html.unescape(re.sub(r"<[^>]+>", "", text)).strip(), "page": f"{card.name}.html", "anchor": anchor}
        for _, anchor, text in _HEADING.findall(page)
    ]


def _contents(cards: Sequence[Card], headings: list[dict[str, str]], profile: str) -> str:
    """The first page."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("contents.html.j2")
    in_script = json.dumps(headings, ensure_ascii=False).replace("<", "\\u003c")  # no text of ours ends the script
    return template.render(cards=cards, dots=dots, headings=in_script, profile=profile)
