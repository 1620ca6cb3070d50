# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`python -m hf_vanilla_transformer` is the command `vanilla-transformer`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
