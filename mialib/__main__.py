"""`python -m mialib`: the command line of `companion`."""

import sys

from companion.__main__ import start

if __name__ == "__main__":
    sys.exit(start())
