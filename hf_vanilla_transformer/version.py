# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The version. CHANGELOG.md defines what each digit promises about the compatibility of checkpoints."""

__version__ = "0.1.0"
TESTED_TRANSFORMERS = ("5.17.0", "5.24.0")  # the oldest and newest tested releases
