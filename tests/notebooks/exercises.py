"""Exercises and code by hand, loaded out of the notebooks.

A notebook is never imported: cells are taken from its file and run in a namespace that holds what the notebook imports,
its cells tagged `by-hand`, and the solutions of earlier exercises. What needs more than that (checks written out in the
notebook, which use its data) is tried inside a run of the whole notebook, see `with_attempts` and `attempt`.
"""

import ast
import contextlib
import importlib.util
import io
import json
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from stm_lab import checks
from stm_lab.course.notebooks import notebook_bytes, read_notebook, tags
from stm_lab.util.paths import shipped_notebooks_dir

HERE = Path(__file__).parent
NOTEBOOKS = sorted(shipped_notebooks_dir().glob("*.ipynb"))
STUB = 'raise NotImplementedError("your turn")'
_HEADING = re.compile(r"^## Exercise (\d+): (.+)")
_SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION", re.MULTILINE | re.DOTALL)
_TOP_LEVEL = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


@dataclass(frozen=True)
class Found:
    """An exercise as it stands in its notebook. `place`: of the Markdown cell among the cells."""

    path: Path
    number: int
    title: str
    task: str
    solution: str
    check: str
    place: int

    def __str__(self) -> str:
        return f"{self.path.stem[:2]}-{self.number}"

    @property
    def stub(self) -> str:
        """The solution's cell as a learner gets it; made here once more, not by `course copy`, which it judges."""
        return without_solution(self.solution)

    @property
    def checks(self) -> list[checks.Exercise]:
        """The checks that its check cell calls: `checks.of("02").dilated(dilated)`."""
        calls = re.findall(r'checks\.of\("(\d\d)"\)\.(\w+)\(', self.check)
        return [getattr(checks.of(notebook), name) for notebook, name in calls]

    @property
    def wrong_answers(self) -> list[tuple[str, str]]:
        """Solutions with a mistake, and what is said of them: `WRONG` of wrong_answers/<NN>.py, {number: [edits]}.

        An edit is (old, new, says): what stands once in the solution, what stands there instead, a part of the message.
        """
        file = HERE / "wrong_answers" / f"{self.path.stem[:2]}.py"
        edits = _module(file).WRONG.get(self.number, []) if file.is_file() else []
        for old, _, _ in edits:
            assert self.solution.count(old) == 1, f"{self}: {old!r} is not once in the solution"
        return [(self.solution.replace(old, new), says) for old, new, says in edits]


def without_solution(source: str) -> str:
    return _SOLUTION.sub(lambda match: match[1] + STUB, source)


@cache
def in_notebook(path: Path) -> tuple[Found, ...]:
    """The exercises of a notebook, in its order: heading, solution, check, one after the other."""
    cells = read_notebook(path)["cells"]
    found = []
    for place, cell in enumerate(cells):
        heading = _HEADING.match(cell["source"]) if cell["cell_type"] == "markdown" else None
        if heading:
            solution, check = cells[place + 1 : place + 3]
            assert "solution" in tags(solution), f"{path.stem}, {heading[0]}: a cell tagged `solution` must follow"
            assert "check" in tags(check), f"{path.stem}, {heading[0]}: then one tagged `check`"
            number, title = int(heading[1]), heading[2]
            found.append(Found(path, number, title, cell["source"], solution["source"], check["source"], place))
    return tuple(found)


def all_exercises() -> list[Found]:
    return [exercise for path in NOTEBOOKS for exercise in in_notebook(path)]


def all_checks() -> list[checks.Exercise]:
    """The checks of all notebooks, in their order."""
    files = sorted((shipped_notebooks_dir() / "exercises").glob("*.py"))
    return [one for file in files for one in vars(checks.of(file.stem)).values() if isinstance(one, checks.Exercise)]


def by_hand_cells(path: Path, before: int | None = None) -> list[str]:
    return [cell["source"] for cell in read_notebook(path)["cells"][:before] if "by-hand" in tags(cell)]


def not_by_hand(source: str) -> list[str]:
    """What does not belong into a cell tagged `by-hand`: all but imports, functions, classes, constants."""
    return [ast.unparse(node) for node in ast.parse(source).body if not isinstance(node, _TOP_LEVEL)]


def namespace(path: Path, before: int | None = None) -> dict:
    """What an exercise may use: imports, code by hand and the solutions before that place. Nothing else is run."""
    scope = {"__name__": "__main__"}
    for cell in read_notebook(path)["cells"][:before]:
        if cell["cell_type"] != "code":
            continue
        if {"by-hand", "solution"} & set(tags(cell)):
            execute(cell["source"], scope, path.stem)
        elif "check" not in tags(cell):
            imports = [n for n in ast.parse(cell["source"]).body if isinstance(n, (ast.Import, ast.ImportFrom))]
            execute("\n".join(map(ast.unparse, imports)), scope, path.stem)
    return scope


def execute(source: str, scope: dict, name: str = "cell") -> str:
    """Run a cell in a namespace; what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, name, "exec"), scope)
    return printed.getvalue()


@cache
def by_hand(number: str) -> SimpleNamespace:
    """What the notebook of that number ("02") defines by hand, as attributes."""
    path = next(path for path in NOTEBOOKS if path.stem.startswith(number))
    return SimpleNamespace(**namespace(path))


def defined_by_hand(path: Path) -> list[str]:
    """The names of functions and classes in the cells tagged `by-hand`."""
    nodes = [node for source in by_hand_cells(path) for node in ast.parse(source).body]
    return [node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def _module(file: Path):
    spec = importlib.util.spec_from_file_location(f"wrong_answers_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- checks that are written out in the notebook --------------------------------------------------------------------


def has_own_checks(path: Path) -> bool:
    return any(not exercise.checks for exercise in in_notebook(path))


def with_attempts(path: Path, folder: Path) -> Path:
    """A copy of the course in `folder` whose notebook tries the stub and the wrong answers after each check cell.

    Each attempt is written as a line to `attempts.jsonl` there: (exercise, stub or a part of the message, outcome).
    """
    shutil.copytree(shipped_notebooks_dir(), folder, ignore=shutil.ignore_patterns(".*"))
    notebook = read_notebook(path)
    for exercise in reversed(in_notebook(path)):
        answers = [(exercise.stub, "stub"), *exercise.wrong_answers]
        call = f"exercises.attempt(globals(), {exercise.number}, {answers!r}, {exercise.check!r}, {str(folder)!r})"
        source = f"import sys\n\nsys.path.insert(0, {str(HERE)!r})\nimport exercises\n\n{call}"
        cell = {"cell_type": "code", "id": f"attempt-{exercise.number}", "metadata": {}, "outputs": []}
        notebook["cells"].insert(exercise.place + 3, {**cell, "execution_count": None, "source": source})
    copy = folder / path.name
    copy.write_bytes(notebook_bytes(notebook))
    return copy


def attempt(scope: dict, number: int, answers: list[tuple[str, str]], check: str, folder: str) -> None:
    """Inside the notebook's run: give each answer to the check, in a copy of the notebook's namespace."""
    with (Path(folder) / "attempts.jsonl").open("a") as file:
        for answer, says in answers:
            file.write(json.dumps([number, says, outcome(answer, check, dict(scope))]) + "\n")


def outcome(answer: str, check: str, scope: dict) -> str:
    """What a check says of an answer: "right", "nothing written yet", "wrong: message" or the error's name.

    A stub that stands outside of a function fails where it is run, not in the check.
    """
    try:
        execute(answer, scope)
        execute(check, scope)
    except NotImplementedError:
        return "nothing written yet"
    except AssertionError as error:
        return f"wrong: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "right"


def expected_attempts(path: Path) -> int:
    """A stub for each exercise, and its wrong answers, where checks are written out in the notebook."""
    return sum(1 + len(one.wrong_answers) for one in in_notebook(path)) if has_own_checks(path) else 0


def attempts(folder: Path) -> list[tuple[int, str, str]]:
    file = folder / "attempts.jsonl"
    return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
