"""The course's notebooks: declared by cards, run with checked parameters, gathered as rows.

`setup`, `run`, `sweep` and `rows` are functions here; the modules that define them bear the same names.
"""

from .cards import check_values, load_card, load_cards
from .leaderboard import leaderboard
from .results import rows, summary
from .run import RunFailed, run
from .setup import Lab, setup
from .sweep import sweep

__all__ = [
    "Lab",
    "RunFailed",
    "check_values",
    "leaderboard",
    "load_card",
    "load_cards",
    "rows",
    "run",
    "setup",
    "summary",
    "sweep",
]
