"""One model on two CPU processes: tensor parallel with transformers' plan, and fully sharded by torch (FSDP2)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_vanilla_transformer.model.configuration_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tmp_path) -> VanillaTransformerForConditionalGeneration:
    torch.manual_seed(0)
    config = VanillaTransformerConfig(
        vocab_size=24, d_model=16, d_ff=32, num_heads=4, encoder_layers=2, decoder_layers=2, dropout=0.0
    )
    model = VanillaTransformerForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    ids = torch.randint(4, 24, (4, 7))
    ids[1, 5:] = 0
    labels = torch.randint(4, 24, (4, 6))
    labels[2, 3:] = -100
    torch.save({"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}, tmp_path / "batch.pt")
    return model


def run(action: str, folder: Path) -> list[dict]:
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        list(map(str, [*command, script, action, folder])),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-4000:]
    return [json.loads((folder / f"{action}-{rank}.json").read_text()) for rank in (0, 1)]


def test_tensor_parallel_processes_give_the_logits_of_one(model, tmp_path):
    records = run("tensor_parallel", tmp_path)
    batch = torch.load(tmp_path / "batch.pt")
    with torch.no_grad():
        expected = model.eval()(**batch).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, rtol=0, atol=1e-5)
    for record in records:  # the weights are split: 2 of 4 heads, half of d_ff
        assert record["local"]["model.encoder.layers.0.self_attn.q_proj.weight"] == [8, 16]
        assert record["local"]["model.decoder.layers.1.cross_attn.out_proj.weight"] == [16, 8]
        assert record["local"]["model.decoder.layers.0.feed_forward.w_1.weight"] == [16, 16]


def test_fully_sharded_processes_make_the_updates_of_one(model, tmp_path):
    records = run("fully_shard", tmp_path)
    assert set(records[0]["kinds"].values()) == {"DTensor"}  # sharded, not replicated as under DDP
    model = model.double().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    batch = torch.load(tmp_path / "batch.pt")
    for step in range(3):
        loss = model(**batch, label_smoothing=0.1).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert records[0]["losses"][step] == pytest.approx(loss.item(), abs=1e-10)
    sharded = torch.load(tmp_path / "sharded.pt")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(sharded[name], weight, rtol=0, atol=1e-10)
