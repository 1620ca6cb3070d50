"""Checkpoints load completely, exactly, and without this package."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerEncoderModel,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerModel,
)
from hf_vanilla_transformer.model.modeling_vanilla_transformer import RENAMED_PARAMETERS

SOURCE, TARGET = torch.tensor([[4, 9, 17, 5, 2], [6, 8, 2, 0, 0]]), torch.tensor([[1, 7, 8, 3], [1, 18, 10, 4]])


def build(**fields):
    torch.manual_seed(0)
    sizes = dict(vocab_size=23, d_model=12, d_ff=10, num_heads=3, encoder_layers=2, decoder_layers=1)
    return VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**{**sizes, **fields})).eval()


def test_auto_classes_know_the_model(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is VanillaTransformerConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is VanillaTransformerModel
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(again) is VanillaTransformerForConditionalGeneration
    assert torch.equal(again(SOURCE, decoder_input_ids=TARGET).logits, model(SOURCE, decoder_input_ids=TARGET).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sinusoids_are_correct_after_from_pretrained(dtype, tmp_path):
    build().save_pretrained(tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=dtype)
    for stack in (model.model.encoder, model.model.decoder):
        rows = stack.add_positions(torch.zeros(1, 60, 12, dtype=dtype), None)[0]
        # PE(57, 2·3) = sin(57 / 10000^(6/12)) = sin(0.57), and its cosine beside it.
        assert rows[57, 6].item() == pytest.approx(math.sin(0.57), abs=torch.finfo(dtype).eps)
        assert rows[57, 7].item() == pytest.approx(math.cos(0.57), abs=torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_and_close(dtype, tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    half = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=dtype)
    logits = half(SOURCE, decoder_input_ids=TARGET).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), model(SOURCE, decoder_input_ids=TARGET).logits, atol=0.15, rtol=0.1)


def test_encoder_loads_from_a_checkpoint_of_the_full_model(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    encoder, report = VanillaTransformerEncoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(encoder(SOURCE).last_hidden_state, model.model.encoder(SOURCE).last_hidden_state)


@pytest.mark.parametrize("load", [AutoModelForSeq2SeqLM, AutoModel, VanillaTransformerEncoderModel])
def test_old_names_of_learned_positions_are_refused_and_the_mapping_in_the_message_loads_them(load, tmp_path):
    model = build(position_embedding_type="learned", max_position_embeddings=9)
    model.save_pretrained(tmp_path)
    names = {
        f"model.{stack}.embed_positions.weight": f"model.{stack}.represent.positions.table.weight"
        for stack in ("encoder", "decoder")
    }
    weights = load_file(tmp_path / "model.safetensors")
    assert set(names) <= set(weights)
    old = {names.get(name, name): tensor for name, tensor in weights.items()}
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="old parameter name '.*represent.positions.table.weight'; load it once with"):
        load.from_pretrained(tmp_path)
    loaded = load.from_pretrained(tmp_path, key_mapping=RENAMED_PARAMETERS)
    loaded.save_pretrained(tmp_path / "again", save_original_format=False)
    again, report = load.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(again.get_encoder()(SOURCE)[0], model.get_encoder()(SOURCE)[0])


PROGRAM = """
import sys
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM
try:
    import hf_vanilla_transformer
except ImportError:
    pass
else:
    sys.exit("the package can be imported here")
folder = sys.argv[1]
source, target = torch.load(folder + "/inputs.pt")
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
assert config.model_type == "vanilla_transformer", config
model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
states = AutoModel.from_pretrained(folder, trust_remote_code=True)(source, decoder_input_ids=target).last_hidden_state
torch.save((model(source, decoder_input_ids=target).logits, states), folder + "/outputs.pt")
"""


def test_a_process_without_the_package_loads_it_with_trust_remote_code(tmp_path):
    model = build(position_embedding_type="sinusoidal_t2t", norm_position="pre", final_norm=True)
    classes = (
        (VanillaTransformerConfig, "AutoConfig"),
        (VanillaTransformerForConditionalGeneration, "AutoModelForSeq2SeqLM"),
    )
    folder = tmp_path / "checkpoint"
    try:
        for cls, auto in classes:
            cls.register_for_auto_class(auto)
        model.save_pretrained(folder)
    finally:
        for cls, _ in classes:
            cls._auto_class = None  # else every later save in this process would copy code
    # Saving adds the saved class only; the base model is in the same files.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"]["AutoModel"] = "modeling_vanilla_transformer.VanillaTransformerModel"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save((SOURCE, TARGET), folder / "inputs.pt")
    # A folder of the same name that raises ImportError hides the installed package.
    blocker = tmp_path / "path" / "hf_vanilla_transformer"
    blocker.mkdir(parents=True)
    (blocker / "__init__.py").write_text("raise ImportError('hidden')\n", encoding="utf-8")
    environment = {
        **os.environ, "PYTHONPATH": str(blocker.parent), "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    logits, states = torch.load(folder / "outputs.pt")
    assert torch.equal(logits, model(SOURCE, decoder_input_ids=TARGET).logits)
    assert torch.equal(states, model.model(SOURCE, decoder_input_ids=TARGET).last_hidden_state)
    copied = {path.name for path in folder.glob("*.py")}
    assert {"configuration_vanilla_transformer.py", "layers_vanilla_transformer.py"} <= copied, copied


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, empty, remove])
def test_damaged_weights_are_refused_in_one_sentence(damage, tmp_path):
    build().save_pretrained(tmp_path)
    damage(tmp_path / "model.safetensors")
    with pytest.raises((OSError, ValueError)) as caught:
        VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path)
    assert "model.safetensors" in str(caught.value)


def test_weights_of_other_sizes_are_refused_by_name(tmp_path):
    build().save_pretrained(tmp_path)
    config = VanillaTransformerConfig.from_pretrained(tmp_path, d_ff=14)
    with pytest.raises((RuntimeError, ValueError), match="mismatch|fit"):
        VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path, config=config)
