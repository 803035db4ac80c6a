"""`python -m sln`."""

import sys

from sln.cli import main

if __name__ == "__main__":
    sys.exit(main())
