# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The model's code: the files that are published with a checkpoint."""

# The first import of transformers registers this package's classes with the Auto classes (auto_registration.py), which
# imports files of this folder. It must happen before any of them is being imported.
import transformers  # noqa: F401
