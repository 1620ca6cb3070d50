# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The package version. CHANGELOG.md explains what each component promises about checkpoint compatibility."""

__version__ = "0.1.0"
TESTED_TRANSFORMERS = ("5.17.0", "5.24.0")  # the oldest and newest tested releases
