"""What transformers' own tests need of pytest before they can be imported."""

import pytest

# Marks that transformers' test files carry; --strict-markers refuses the file at import otherwise.
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
