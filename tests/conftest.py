"""Helpers of one folder that tests of another import by name."""

import sys
from pathlib import Path

for folder in ("golden", "unit"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
