# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The commands of the command line, one module per command.

Each module has a function `add_parser`, which declares the command's options, and a function `run`, which calls one
function of the package and prints the result. `run` imports that function itself, so that `--help` imports neither
torch nor transformers.
"""
