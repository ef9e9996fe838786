"""`python -m trae_bench`."""

import sys

from trae_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
