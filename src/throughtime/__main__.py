"""`python -m throughtime`, and the command `throughtime`."""

import sys

from throughtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
