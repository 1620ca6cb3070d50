"""Damaged or malicious files: an error of one sentence, no traceback, no code run, nothing read outside the folder.

Every test has two variants: few examples in the fast tests, many in the slow tests.
"""

import io
import json
import os
import pickle
import shutil
import struct
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from platforms import peak_memory

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, preset, train_tokenizer
from hf_vanilla_transformer.checkpoints.averaging import average_checkpoints
from hf_vanilla_transformer.checkpoints.checkpoint_directory import CheckpointDirectory, read_safetensors_header
from hf_vanilla_transformer.checkpoints.loading import load_checkpoint
from hf_vanilla_transformer.checkpoints.manifest import MANIFEST_NAME, BrokenCheckpointError, verify, write_manifest
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.json_object import read_json_object
from hf_vanilla_transformer.training.recipe import read_recipe

FEW, MANY = 12, 400
COUNTS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]
MEMORY = 600 * 2**20  # bytes that no command on these tiny files may need beyond what it started with


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hostile") / "checkpoint"
    tokenizer = train_tokenizer(["one two three", "하나 둘 셋"], 280)
    sizes = {"d_model": 8, "d_ff": 8, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **sizes)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def fuzz(count: int, **strategies):
    """Draw examples, the same in every run, so that a failure can be reproduced."""
    options = settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    return lambda test: options(given(**strategies)(test))


def command(*words: object) -> tuple[int, str]:
    """Run a command in this process on one line of input; return its status and its error output."""
    stdin, stdout, stderr = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BytesIO(b"one\n")),
        io.TextIOWrapper(io.BytesIO()),
        io.StringIO(),
    )
    try:
        return main(list(map(str, words))), sys.stderr.getvalue()
    finally:
        sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr


def assert_done_or_one_sentence(name: str, status: int, said: str) -> None:
    assert status in (0, 2), said
    assert "Traceback" not in said
    if status == 2:
        assert said.strip().splitlines()[-1].startswith(f"vanilla-transformer {name}: error: ")


def mutated(folder: Path, target: Path, file: str, change) -> Path:
    """Copy a checkpoint and change one of its files."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    change(target / file)
    return target


# Unexpected JSON: wrong types, huge and negative numbers, nested values, paths outside the folder.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 10**9, 1e308, float("nan"), float("inf")]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["../../etc/passwd", "/etc/passwd", "os.system", "kernels-community/evil", "evil--module.Class", "\ud800"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def damage(draw) -> tuple:
    """Draw a change of a file's bytes: cut, overwrite or insert."""
    kind = draw(st.sampled_from(["cut", "flip", "insert", "replace"]))
    return kind, draw(st.floats(0, 1)), draw(st.binary(min_size=1, max_size=24))


def apply(kind: str, place: float, data: bytes, content: bytes) -> bytes:
    at = int(place * len(content))
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        return content[:at] + bytes(b ^ d for b, d in zip(content[at:], data, strict=False)) + content[at + len(data) :]
    if kind == "insert":
        return content[:at] + data + content[at:]
    return data


# --------------------------------------------------------------------------- config.json


@pytest.mark.parametrize("count", COUNTS)
def test_any_configuration_translates_or_is_rejected_in_a_sentence(
    checkpoint: Path, tmp_path: Path, count: int
) -> None:
    fields = sorted(json.loads((checkpoint / "config.json").read_text()))
    extra = """auto_map attn_implementation _attn_implementation quantization_config torch_dtype dtype architectures
        model_type custom_pipelines is_encoder_decoder num_labels id2label""".split()

    @fuzz(count, key=st.sampled_from([*fields, *extra]), value=VALUES)
    def try_one(key: str, value: object) -> None:
        def change(path: Path) -> None:
            path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

        folder = mutated(checkpoint, tmp_path / "changed", "config.json", change)
        before = peak_memory()
        status, said = command("translate", folder, "--num-beams", 1)
        assert_done_or_one_sentence("translate", status, said)
        assert peak_memory() - before < MEMORY

    try_one()


@pytest.mark.parametrize(
    ("key", "value"),
    [("encoder_layers", 10**9), ("d_model", 2**40), ("d_ff", 10**12), ("vocab_size", 10**8), ("num_heads", 10**9),
     ("decoder_vocab_size", 10**9), ("d_k", 10**9), ("d_v", 10**9)],
)  # fmt: skip
def test_a_configuration_cannot_ask_for_more_than_its_weights_hold(checkpoint, tmp_path, key, value) -> None:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    with pytest.raises(ValueError, match="config.json in .* says"):
        CheckpointDirectory(mutated(checkpoint, tmp_path / "changed", "config.json", change)).check()


@pytest.mark.parametrize(
    ("name", "other_name"), [("d_model", "hidden_size"), ("decoder_vocab_size", "target_vocab_size")]
)
def test_a_size_under_another_name_of_its_field_is_checked_as_well(checkpoint, tmp_path, name, other_name) -> None:
    def change(path: Path) -> None:
        config = json.loads(path.read_text())
        config.pop(name, None)
        path.write_text(json.dumps({**config, other_name: 10**9}))

    with pytest.raises(ValueError, match=f"config.json in .* {name}=1000000000"):
        CheckpointDirectory(mutated(checkpoint, tmp_path / "changed", "config.json", change)).check()


def test_code_that_a_checkpoint_brings_or_names_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    evil = f"import os\nos.system('touch {proof}')\nclass Evil: pass\n"

    def change(path: Path) -> None:
        (path.parent / "evil.py").write_text(evil)
        classes = {
            "AutoConfig": "evil.Evil",
            "AutoModelForSeq2SeqLM": "evil.Evil",
            "AutoTokenizer": ["evil.Evil", "evil.Evil"],
        }
        for name in ("config.json", "tokenizer_config.json"):
            content = json.loads((path.parent / name).read_text())
            (path.parent / name).write_text(json.dumps({**content, "auto_map": classes}))

    folder = mutated(checkpoint, tmp_path / "changed", "config.json", change)
    status, said = command("translate", folder)
    assert_done_or_one_sentence("translate", status, said)
    assert not proof.exists()
    with pytest.raises(ValueError, match="code that a checkpoint names is not run"):
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**content, "attn_implementation": "kernels-community/evil"}))
        load_checkpoint(folder)


def test_pickled_weights_are_not_read(checkpoint: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'proof'}",)

    def change(path: Path) -> None:
        path.unlink()
        path.with_name("pytorch_model.bin").write_bytes(pickle.dumps({"weight": Payload()}))

    folder = mutated(checkpoint, tmp_path / "changed", "model.safetensors", change)
    status, said = command("translate", folder)
    assert status == 2
    assert_done_or_one_sentence("translate", status, said)
    assert not (tmp_path / "proof").exists()


# --------------------------------------------------------------------------- safetensors


@pytest.mark.parametrize("count", COUNTS)
def test_any_weights_load_or_are_rejected_in_a_sentence(checkpoint: Path, tmp_path: Path, count: int) -> None:
    header_length = struct.unpack("<Q", (checkpoint / "model.safetensors").read_bytes()[:8])[0]

    @fuzz(count, what=damage(), in_header=st.booleans())
    def try_one(what: tuple, in_header: bool) -> None:
        def change(path: Path) -> None:
            content = path.read_bytes()
            border = 8 + header_length if in_header else len(content)
            path.write_bytes(apply(*what, content[:border]) + content[border:])

        folder = mutated(checkpoint, tmp_path / "changed", "model.safetensors", change)
        status, said = command("translate", folder, "--num-beams", 1)
        assert_done_or_one_sentence("translate", status, said)
        status, said = command("average", folder, "--output", tmp_path / "mean", "--overwrite")
        assert_done_or_one_sentence("average", status, said)

    try_one()


def test_a_header_is_never_read_further_than_the_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length in (2**63, 2**40, 100 * 2**20 + 1, 3):
        path.write_bytes(struct.pack("<Q", length) + b"{}")
        with pytest.raises(ValueError, match="its header is longer than the file allows"):
            read_safetensors_header(path)
    path.write_bytes(struct.pack("<Q", 2) + b"{}")
    assert read_safetensors_header(path) == {}


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/model.safetensors", "", ".."])
def test_an_index_cannot_lead_out_of_the_folder(checkpoint: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(checkpoint / "model.safetensors", tmp_path / "secret.safetensors")

    def change(path: Path) -> None:
        path.unlink()
        index = {"metadata": {}, "weight_map": {"model.shared.weight": name}}
        path.with_name("model.safetensors.index.json").write_text(json.dumps(index))

    folder = mutated(checkpoint, tmp_path / "changed", "model.safetensors", change)
    with pytest.raises(ValueError, match="which is no file of its folder"):
        load_checkpoint(folder)


# --------------------------------------------------------------------------- tokenizer.json


@pytest.mark.parametrize("count", COUNTS)
def test_any_tokenizer_translates_or_is_rejected_in_a_sentence(checkpoint: Path, tmp_path: Path, count: int) -> None:
    keys = sorted(json.loads((checkpoint / "tokenizer.json").read_text()))

    @fuzz(count, what=damage(), key=st.sampled_from([None, *keys]), value=VALUES)
    def try_one(what: tuple, key: str | None, value: object) -> None:
        def change(path: Path) -> None:
            if key is None:
                path.write_bytes(apply(*what, path.read_bytes()))
            else:
                path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

        folder = mutated(checkpoint, tmp_path / "changed", "tokenizer.json", change)
        status, said = command("translate", folder, "--num-beams", 1)
        assert_done_or_one_sentence("translate", status, said)

    try_one()


# --------------------------------------------------------------------------- manifests, state, recipes


@pytest.mark.parametrize("count", COUNTS)
def test_any_manifest_is_intact_or_rejected(tmp_path: Path, count: int) -> None:
    (tmp_path / "a.txt").write_text("a")
    write_manifest(tmp_path, {"step": 1})
    intact = (tmp_path / MANIFEST_NAME).read_bytes()

    @fuzz(count, what=damage())
    def try_one(what: tuple) -> None:
        changed = apply(*what, intact)
        (tmp_path / MANIFEST_NAME).write_bytes(changed)
        if changed == intact:
            verify(tmp_path)
            return
        with pytest.raises(BrokenCheckpointError, match=MANIFEST_NAME):
            verify(tmp_path)

    try_one()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "", ".", "c:\\x", "nul\0"])
def test_a_well_formed_manifest_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    from hf_vanilla_transformer.checkpoints import manifest

    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    files = {name: {"bytes": 1, "sha256": manifest.file_sha256(tmp_path / "secret")}}
    content = {"format": manifest.FORMAT, "facts": {}, "files": files}
    (folder / MANIFEST_NAME).write_text(manifest._render(content))  # digest and all
    with pytest.raises(BrokenCheckpointError, match="which is no file of its folder"):
        verify(folder)


@pytest.mark.parametrize("count", COUNTS)
def test_any_state_is_json_or_rejected(tmp_path: Path, count: int) -> None:
    path = tmp_path / "trainer_state.json"

    @fuzz(count, content=st.one_of(st.binary(max_size=60), VALUES.map(lambda value: json.dumps(value).encode())))
    def try_one(content: bytes) -> None:
        path.write_bytes(content)
        try:
            assert isinstance(read_json_object(path), dict)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017 - both outcomes are valid

    try_one()
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not valid JSON"):
        read_json_object(path)


@pytest.mark.parametrize("count", COUNTS)
def test_any_recipe_is_read_or_rejected_in_a_sentence(tmp_path: Path, count: int) -> None:
    path = tmp_path / "r.yaml"
    lines = ["dataset_name: embedded", "preset: tiny", "max_steps: 3", "vocab_size: 300", "use_cpu: true"]
    hostile = st.sampled_from(
        ["!!python/object/apply:os.system ['touch proof']", "&a [*a, *a]", "{a: " * 9 + "1" + "}" * 9,
         "1e999", "-1", "[]", "~", "\0", "../../x", "0x7fffffffffffffffffff", "<<: *x", "? a", "%TAG ! x"]
    )  # fmt: skip
    keys = st.sampled_from(
        ["preset", "config_overrides", "vocab_size", "max_steps", "warmup_steps", "train_source", "seed", "x"]
    )

    @fuzz(count, key=keys, value=st.one_of(hostile, st.text(max_size=30)), what=st.one_of(st.none(), damage()))
    def try_one(key: str, value: str, what: tuple | None) -> None:
        kept = [line for line in lines if not line.startswith(f"{key}:")]
        content = "\n".join([*kept, f"{key}: {value}"]).encode("utf-8", errors="surrogatepass")
        path.write_bytes(content if what is None else apply(*what, content))
        try:
            read_recipe(path, ["--output_dir", str(tmp_path / "out")])
        except ValueError as error:
            assert str(path) in str(error) or "r.yaml" in str(error)  # noqa: PT017

    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        try_one()
    finally:
        os.chdir(here)
    assert not (tmp_path / "proof").exists()
    assert not (tmp_path / "out").exists()


def test_averaging_cannot_be_led_out_of_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint / "model.safetensors", tmp_path / "secret.safetensors")

    def change(path: Path) -> None:
        path.unlink()
        names = list(read_safetensors_header(tmp_path / "secret.safetensors"))
        index = {"weight_map": dict.fromkeys(names, "../secret.safetensors")}
        path.with_name("model.safetensors.index.json").write_text(json.dumps(index))

    folder = mutated(checkpoint, tmp_path / "changed", "model.safetensors", change)
    with pytest.raises(ValueError, match="which is no file of its folder"):
        average_checkpoints([folder], tmp_path / "mean")
