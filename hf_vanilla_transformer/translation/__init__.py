# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Texts in, texts out: translate with a torch model or an exported one, and score given translations."""
