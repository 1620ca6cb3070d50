"""Tests of everything that differs on a GPU. Each runs twice: on the CPU as a rehearsal, and on CUDA, marked `gpu`.

`make gpu-check` runs the second half on a machine with a GPU. The environment variable VANILLA_TRANSFORMER_TEST_DEVICE
("cpu" or "cuda") leaves the other half out, and makes a missing GPU a failure.
"""

import os

import pytest
import torch

DEVICE_VARIABLE = "VANILLA_TRANSFORMER_TEST_DEVICE"
# Before the first product on the GPU: cuBLAS adds up in the same order each time only with a workspace of its own.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow_on_cpu: the rehearsal on the CPU is marked slow")
    config.addinivalue_line("markers", "only_on_gpu(reason): there is nothing to rehearse on the CPU")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" not in metafunc.fixturenames:
        return
    asked = os.environ.get(DEVICE_VARIABLE)
    cpu = [pytest.mark.slow] if metafunc.definition.get_closest_marker("slow_on_cpu") else []
    if only := metafunc.definition.get_closest_marker("only_on_gpu"):
        cpu.append(pytest.mark.skip(reason=only.args[0]))
    marks = {"cpu": cpu, "cuda": [pytest.mark.gpu]}
    names = [asked] if asked else list(marks)
    metafunc.parametrize("device", [pytest.param(name, marks=marks[name]) for name in names], indirect=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU, all at one place, so that pytest reports it in one line."""
    if item.get_closest_marker("gpu") and not os.environ.get(DEVICE_VARIABLE) and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device that is tested."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.fail(f"{DEVICE_VARIABLE}=cuda, but torch {torch.__version__} finds no CUDA device")
    return torch.device(request.param)
