# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of an installation: does the model compute correct results with the installed torch and transformers?

Each check is a function of the device. It returns nothing, or raises an exception that reports the difference. The
checks share one small model whose weights depend on a seed only, and compare the package's results with a plain
reference computation: no cache, no chunks, no padding, fp64. Nothing is downloaded, and only a temporary directory is
written.

`runner` has `check_installation`; `report` has its result; the other modules have the checks, one topic each.
"""
