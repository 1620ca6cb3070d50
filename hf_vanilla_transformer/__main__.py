# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The program: `python -m hf_vanilla_transformer` is the command `vanilla-transformer`."""

import sys

from .commands.interrupts import one_line_interrupts


def main() -> int:
    """Run the command of this process, and return its exit status; Ctrl-C ends even its imports with one line."""
    with one_line_interrupts("vanilla-transformer"):
        from .cli import main

        return main()


if __name__ == "__main__":
    sys.exit(main())
