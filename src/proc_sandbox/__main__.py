"""`python -m proc_sandbox`: the same as the command `proc-sandbox`."""

import sys

from proc_sandbox.cli import program

if __name__ == "__main__":
    sys.exit(program())
