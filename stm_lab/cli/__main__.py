"""`python -m stm_lab.cli`: the command line where the console script is not on the path."""

import sys

from stm_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
