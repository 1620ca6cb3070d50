"""The device of a command: the accelerator if there is one, unless --device names another."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, preset, train_tokenizer
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.device import choose_device, device_of_process, move_to_device
from hf_vanilla_transformer.launch import Launch


@pytest.fixture(params=["cuda", "mps", "xpu"])
def accelerator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make torch report an accelerator."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(request.param))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    return request.param


def test_the_accelerator_is_the_default_and_an_explicit_device_takes_precedence(accelerator: str) -> None:
    assert choose_device() == torch.device(accelerator)
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_device(f"{accelerator}:1") == torch.device(accelerator, 1)


def test_each_process_of_a_launch_has_a_device_of_its_own_unless_one_was_chosen(accelerator: str) -> None:
    def device_of(local_rank: int, processes: int = 4, device: str | None = None) -> torch.device:
        return device_of_process(choose_device(device), Launch(local_rank, processes, local_rank))

    assert [device_of(rank) for rank in range(4)] == [torch.device(accelerator, rank % 2) for rank in range(4)]
    assert device_of(0, processes=1) == torch.device(accelerator)
    assert device_of(0, device=f"{accelerator}:1") == torch.device(accelerator, 1)
    assert device_of(1, device="cpu") == torch.device("cpu")


def test_without_an_accelerator_the_cpu_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    with pytest.raises(ValueError, match="device='cuda' is not available; available are: 'cpu'"):
        choose_device("cuda")


def test_an_unavailable_device_is_rejected_and_the_available_ones_are_listed(accelerator: str) -> None:
    other = "xpu" if accelerator == "cuda" else "cuda"
    with pytest.raises(ValueError, match=f"device='{other}' is not available; .*: '{accelerator}' and 'cpu'"):
        choose_device(other)
    with pytest.raises(ValueError, match=f"device='{accelerator}:7' .* the last one is {accelerator}:1"):
        choose_device(f"{accelerator}:7")
    with pytest.raises(ValueError, match="device='gpu' is not the name of a device"):
        choose_device("gpu")


def test_an_exported_model_is_not_moved(accelerator: str) -> None:
    engine = SimpleNamespace(device=torch.device("cpu"))
    assert move_to_device(engine) is engine


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = train_tokenizer(["one two three", "하나 둘 셋"], 300)
    sizes = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=300, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "text").write_text("one\n", encoding="utf-8")
    return folder


COMMANDS = {
    "translate": ["{0}", "--num-beams", "1"],
    "score": ["{0}", "{0}/text", "{0}/text"],
    "evaluate": ["{0}", "--source", "{0}/text", "--reference", "{0}/text", "--num-beams", "1"],
    "visualize": ["{0}", "--source", "one", "--target", "둘", "--output", "{1}/page.html", "--overwrite"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_runs_a_model_moves_it_to_the_chosen_device(
    command: str, checkpoint: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = []

    def to(module: Any, *places: Any, **_: Any) -> Any:
        moved.extend(place for place in places if isinstance(place, torch.device))
        return module  # there is no such device; the model stays on the CPU

    monkeypatch.setattr(VanillaTransformerForConditionalGeneration, "to", to)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    words = [word.format(checkpoint, tmp_path) for word in COMMANDS[command]]
    for device, expected in ((None, "mps"), ("cpu", "cpu")):
        moved.clear()
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"one\n")))
        assert main([command, *words, *(["--device", device] if device else [])]) == 0
        assert torch.device(expected) in moved
        assert ("running on mps" in capsys.readouterr().err) == (device is None)
    assert main([command, *words, "--device", "cuda"]) == 2
    assert "--device cuda is not available; available are: 'mps' and 'cpu'" in capsys.readouterr().err
