"""The course as a site: pages of executed notebooks that lead to each other, on a course of two that need no torch."""

import re
from html.parser import HTMLParser

import nbformat
import pytest
import small_course
import yaml

from stm_lab import UserError, cli
from stm_lab.course.site import write_site

pytestmark = pytest.mark.slow  # two kernels start

CELLS = [
    nbformat.v4.new_markdown_cell(
        "## Where <b>next</b>\n\n[the other](02_other.ipynb#Where-next), [gone](07_gone.ipynb), <https://example.org>"
    ),
    nbformat.v4.new_markdown_cell("## Exercise 1: think\n\n<details><summary>Hint</summary>\n\nof $x$\n\n</details>"),
    nbformat.v4.new_code_cell("answer = 41 + 1", metadata={"tags": ["solution"]}),
    nbformat.v4.new_code_cell(
        "from IPython.display import display\n"
        "widget = {'application/vnd.jupyter.widget-view+json': {'model_id': 'x'}, 'text/html': '<i>still</i>'}\n"
        "display(widget, raw=True)"
    ),
]


class Page(HTMLParser):
    """What a page links to and loads, its anchors, and how deep each text is within <details>."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.anchors, self.open, self.folded = [], [], set(), 0, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id")}
        self.links += [attributes["href"]] if tag == "a" and "href" in attributes else []
        self.loaded += [attributes[key] for key in ("src", "href") if tag in ("script", "link") and key in attributes]
        self.open += tag == "details"

    def handle_endtag(self, tag):
        self.open -= tag == "details"

    def handle_data(self, text):
        if self.open:
            self.folded.append(text)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Runs are made once: (the site's folder, its pages, a function that writes it again)."""
    root = tmp_path_factory.mktemp("course")
    notebooks = small_course.write(root / "notebooks")
    cards = {"01_small": small_course.CARD, "02_other": {**small_course.CARD, "title": "Other <2>"}}
    (notebooks / "course.yaml").write_text(yaml.safe_dump(cards, sort_keys=False))
    notebook = nbformat.read(notebooks / "01_small.ipynb", as_version=4)
    notebook.cells += CELLS
    for name in cards:
        nbformat.write(notebook, notebooks / f"{name}.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STM_LAB_NOTEBOOKS", str(notebooks))
        patch.setenv("STM_LAB_RUNS", str(root / "runs"))
        patch.setattr("stm_lab.util.paths.notebooks_dir", lambda: notebooks)
        patch.setattr("stm_lab.util.paths.runs_dir", lambda: root / "runs")
        yield notebooks, write_site(root / "site", solutions=True)


def test_every_link_leads_somewhere(site):
    _, pages = site
    read = {path.name: Page(path) for path in pages}
    assert sorted(read) == ["01_small.html", "02_other.html", "index.html"]
    links = 0
    for name, page in read.items():
        for link in page.links:
            if not link.startswith("https://"):
                target, _, anchor = link.partition("#")
                assert not anchor or anchor in read[target or name].anchors, (name, link)
                links += 1
    assert {"02_other.html", "02_other.html#Where-next", "index.html"} <= set(read["01_small.html"].links)
    assert links > 8


def test_a_link_to_a_page_that_is_not_there_is_none(site):
    _, pages = site
    assert "gone" in pages[1].read_text()
    assert not any("gone" in link for link in Page(pages[1]).links)


def test_the_search_knows_each_heading_and_where_it_is(site):
    _, pages = site
    listed = re.search(r"const headings = (\[.*?\]);\n", pages[0].read_text())[1]
    assert "<" not in listed
    for one in yaml.safe_load(listed):
        assert one["anchor"] in Page(pages[0].with_name(one["page"])).anchors
    assert [one["text"] for one in yaml.safe_load(listed)] == 2 * ["Where next", "Exercise 1: think"]
    assert "Other &lt;2&gt;" in pages[0].read_text()


def test_pages_load_nothing_but_formulas(site):
    _, pages = site
    for path in pages:
        assert all("mathjax" in address.lower() for address in Page(path).loaded)


def test_hints_and_solutions_are_folded(site):
    folded = "".join(Page(site[1][1]).folded)
    assert "of $x$" in folded
    assert "41" in folded
    assert "still" not in folded
    assert "widget-view" not in site[1][1].read_text().partition("<i>still</i>")[2]


def test_without_solutions_and_for_some_notebooks(site, tmp_path, capsys):
    notebooks, _ = site
    runs = len(small_course.begun(notebooks))
    assert cli.main(["course", "html", str(tmp_path / "some"), "2"]) == 0  # a page for learners, unless told otherwise
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == ["02_other.html", "index.html"]
    page = Page(tmp_path / "some" / "02_other.html")
    assert "41" not in "".join(page.folded)
    assert "Hint" in page.folded
    assert len(small_course.begun(notebooks)) == runs  # what is done is not done again


def test_bad_input(site, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments, expected in [
        ({"target": tmp_path / "file" / "site"}, "Not a directory"),
        ({"target": tmp_path, "notebooks": ["02_othre"]}, "02_other"),
        ({"target": tmp_path, "profile": "papr"}, "quick"),
    ]:
        with pytest.raises(UserError, match=expected):
            write_site(**arguments)
