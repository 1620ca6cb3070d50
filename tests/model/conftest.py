"""Register the markers of transformers' own tests."""

import pytest

# Markers of transformers' test files; with --strict-markers unknown markers are an import error.
TRANSFORMERS_MARKS = (
    "accelerate_tests",
    "all_flash_attn_test",
    "flash_attn_test",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "torch_compile_test",
)


def pytest_configure(config: pytest.Config) -> None:
    for mark in TRANSFORMERS_MARKS:
        config.addinivalue_line("markers", f"{mark}: set by transformers' own tests")
