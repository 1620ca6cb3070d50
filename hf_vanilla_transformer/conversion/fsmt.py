# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""FSMT, transformers' port of fairseq's translation models, in and out, and fairseq's own checkpoints, in.

Their sinusoids have other frequencies than the paper's and stand in halves (``position_embedding_type="sinusoidal_t2t"``),
count from the padding symbol's id + 1 and leave padding out; a target starts with the end symbol. Each side may have a
vocabulary of its own. FSMT's training is wrong (it feeds the decoder other inputs, and padding counts); what it infers
is fairseq's, and that is what comes in exactly.
"""

import argparse
import importlib.util
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import FSMTConfig, GenerationConfig, PreTrainedTokenizerFast
from transformers.utils import logging

from ..json_object import read_json_object
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.modeling_vanilla_transformer import DEFAULT_MAX_LENGTH
from .bart_fields import our_fields, their_fields
from .importing import (
    ImportedCheckpoint,
    carry_tokenizer,
    load_tokenizer,
    read_config,
    read_generation_config,
    read_own,
    read_pickle,
    read_weights,
)
from .key_map import (
    FAIRSEQ_LAYERS,
    OUTPUT_PROJECTION,
    SOURCE_EMBEDDING,
    TARGET_EMBEDDING,
    KeyMap,
    check_complete,
    detect_tying,
    refuse,
    rename_keys,
    restore_keys,
    untie,
    with_prefix,
)

logger = logging.get_logger(__name__)

_LAYER_NORM_EPS = 1e-5  # torch's default, which their code leaves in force

_FSMT: KeyMap = {
    **with_prefix("model.", FAIRSEQ_LAYERS),
    "model.encoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "model.decoder.embed_tokens.weight": TARGET_EMBEDDING,
    "model.decoder.output_projection.weight": OUTPUT_PROJECTION,
    "model.encoder.embed_positions.weight": None,  # sinusoids, computed here
    "model.decoder.embed_positions.weight": None,
}
_FSMT_TIED: KeyMap = {  # where all three are one matrix, a file holds any of them
    **_FSMT,
    "model.decoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "model.encoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "model.decoder.output_projection.weight": SOURCE_EMBEDDING,
}
_FAIRSEQ: KeyMap = {
    **FAIRSEQ_LAYERS,
    "encoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "decoder.embed_tokens.weight": TARGET_EMBEDDING,
    "decoder.output_projection.weight": OUTPUT_PROJECTION,
    "decoder.embed_out": OUTPUT_PROJECTION,  # its name before fairseq 0.10
    "encoder.layer_norm.weight": "model.encoder.final_norm.weight",
    "encoder.layer_norm.bias": "model.encoder.final_norm.bias",
    "decoder.layer_norm.weight": "model.decoder.final_norm.weight",
    "decoder.layer_norm.bias": "model.decoder.final_norm.bias",
    "encoder.version": None,
    "decoder.version": None,
    "encoder.embed_positions._float_tensor": None,  # carries a dtype and a device, no numbers
    "decoder.embed_positions._float_tensor": None,
}
_FAIRSEQ_LEARNED_POSITIONS: KeyMap = {
    "encoder.embed_positions.weight": "model.encoder.embed_positions.weight",
    "decoder.embed_positions.weight": "model.decoder.embed_positions.weight",
}
_UNUSED_FINAL_NORM: KeyMap = {
    "encoder.layer_norm.weight": None,
    "encoder.layer_norm.bias": None,
    "decoder.layer_norm.weight": None,
    "decoder.layer_norm.bias": None,
}
_FAIRSEQ_ACTIVATIONS = {  # fairseq's name → transformers'
    "relu": "relu",
    "gelu": "gelu",
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "swish": "swish",
    "tanh": "tanh",
}


# --------------------------------------------------------------------------- FSMT


def read_fsmt(source: Path) -> ImportedCheckpoint:
    """Read a directory of transformers' FSMTForConditionalGeneration.

    Args:
        source: with config.json, weights, and the tokenizer's vocab-src.json, vocab-tgt.json and merges.txt.

    Raises:
        ValueError: If it is none, or something in it can't be expressed; the message lists everything.
    """
    written = read_config(source, "fsmt")
    try:
        fsmt = FSMTConfig.from_dict(dict(written))
    except Exception as error:  # the strict fields of transformers raise exceptions of their own
        raise ValueError(f"{source}/config.json is no valid configuration ({' '.join(str(error).split())})") from error
    tensors = read_weights(source)
    problems = []
    for ours, theirs in {"num_heads": "attention_heads", "d_ff": "ffn_dim"}.items():
        encoder, decoder = getattr(fsmt, f"encoder_{theirs}"), getattr(fsmt, f"decoder_{theirs}")
        if encoder != decoder:
            problems.append(f"encoder_{theirs} is {encoder} and decoder_{theirs} {decoder}, but there is one {ours}")
    if fsmt.pad_token_id is None:
        problems.append("pad_token_id is None, from which positions are counted")
    fits = not problems
    renamed = rename_keys(tensors, _FSMT_TIED if fsmt.tie_word_embeddings else _FSMT, problems)
    if OUTPUT_PROJECTION not in renamed and not fsmt.tie_word_embeddings:
        problems.append("no weight is there for lm_head.weight, although tie_word_embeddings is False")
    config = None
    if fits and not problems:
        tying = detect_tying(renamed)
        try:
            config = VanillaTransformerConfig(
                vocab_size=fsmt.src_vocab_size,
                decoder_vocab_size=None if tying["share_encoder_decoder_embeddings"] else fsmt.tgt_vocab_size,
                layer_norm_eps=_LAYER_NORM_EPS,
                attention_bias=True,
                position_embedding_type="sinusoidal_t2t",
                position_offset=(fsmt.pad_token_id or 0) + 1,
                unk_token_id=_unknown_id(source / "vocab-src.json"),
                **our_fields(fsmt),
                **tying,
            )
            check_complete(renamed, config, problems)
        except ValueError as error:
            problems.append(str(error))
    refuse(source, "from FSMT", problems)
    assert config is not None
    if fsmt.encoder_layerdrop or fsmt.decoder_layerdrop:
        logger.warning(f"{source}: layer drop is left out; it changes further training, not the model")
    tokenizer = target_tokenizer = None
    if (source / "vocab-src.json").is_file():
        tokenizer, target_tokenizer = _fsmt_tokenizers(source)
    else:
        logger.warning(f"{source} has no vocab-src.json: the result has no tokenizer")
    return ImportedCheckpoint(config, renamed, read_generation_config(source, fsmt), tokenizer, target_tokenizer)


def write_fsmt(source: Path, directory: Path) -> None:
    """Write one of our checkpoints as a directory that transformers' FSMTForConditionalGeneration loads.

    Args:
        source: our checkpoint.
        directory: an empty one.

    Raises:
        ValueError: If FSMT can't express it; the message lists everything.
    """
    own = read_own(source)
    config, problems = own.config, []
    heads_width = config.d_model / config.num_heads
    offset = None if config.pad_token_id is None else config.pad_token_id + 1
    for name, value in {
        "norm_position": "post",
        "final_norm": False,
        "layer_norm_eps": _LAYER_NORM_EPS,
        "attention_bias": True,
        "output_bias": False,
        "position_embedding_type": "sinusoidal_t2t",
        "position_offset": offset,
        "key_dim": heads_width,
        "value_dim": heads_width,
    }.items():
        if getattr(config, name) != value:
            problems.append(f"{name} is {getattr(config, name)!r}, which in FSMT is always {value!r}")
    refuse(source, "to FSMT", problems)
    tied = config.share_encoder_decoder_embeddings and config.tie_word_embeddings
    generation = own.generation_config or GenerationConfig()
    tokenizer_config = source / "tokenizer_config.json"
    languages = read_json_object(tokenizer_config).get("langs") if tokenizer_config.is_file() else None
    fsmt = FSMTConfig(
        langs=languages or ["source", "target"],
        src_vocab_size=config.vocab_size,
        tgt_vocab_size=config.output_vocab_size,
        tie_word_embeddings=tied,
        forced_eos_token_id=generation.forced_eos_token_id,
        architectures=["FSMTForConditionalGeneration"],
        **their_fields(config),
    )
    restored = restore_keys(untie(own.tensors, config), _FSMT)
    fsmt.dtype = next(iter(restored.values())).dtype
    save_torch_state_dict({name: t.clone() for name, t in restored.items()}, directory, metadata={"format": "pt"})
    fsmt.save_pretrained(directory)
    generation.save_pretrained(directory)
    carry_tokenizer(source, directory)


def _unknown_id(vocabulary: Path) -> int | None:
    return read_json_object(vocabulary).get("<unk>") if vocabulary.is_file() else 3  # fairseq's fourth symbol


def _fsmt_tokenizers(source: Path) -> tuple[Any, Any]:
    """Load the stock tokenizer, which encodes the source and decodes the target, and make one for the target alone.

    The second is needed to encode references: None where both sides have the same vocabulary.
    """
    missing = [name for name in ("sacremoses", "joblib") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError("FSMT's tokenizer needs sacremoses; run `pip install sacremoses`")
    from transformers import FSMTTokenizer

    tokenizer = load_tokenizer(FSMTTokenizer, source, ("vocab-src.json", "vocab-tgt.json", "merges.txt"))
    if tokenizer is None:
        return None, None
    tokenizer.eos_token = tokenizer.sep_token  # the same symbol; only the second name is set in their files
    if tokenizer.get_src_vocab() == {token: number for number, token in tokenizer.decoder.items()}:
        return tokenizer, None
    target = FSMTTokenizer(
        langs=[tokenizer.tgt_lang, tokenizer.tgt_lang],
        src_vocab_file=str(source / "vocab-tgt.json"),
        tgt_vocab_file=str(source / "vocab-tgt.json"),
        merges_file=str(source / "merges.txt"),
        do_lower_case=tokenizer.do_lower_case,
        eos_token=tokenizer.sep_token,
    )
    return tokenizer, target


# --------------------------------------------------------------------------- fairseq


def read_fairseq(source: Path) -> ImportedCheckpoint:
    """Read a checkpoint of fairseq's transformer.

    Args:
        source: a directory with one checkpoint (model.pt, checkpoint_best.pt or any one .pt), dict.<language>.txt of
            both sides and, where text is to be segmented, the BPE codes as bpecodes; or the checkpoint's file, with the
            others beside it.

    Raises:
        ValueError: If it is none, or something in it can't be expressed; the message lists everything.
    """
    path = _fairseq_file(source)
    checkpoint = read_pickle(path, harmless=(argparse.Namespace,))
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        raise ValueError(f"{path} has no 'model' and is no checkpoint of fairseq")
    options, task = _fairseq_options(path, checkpoint)
    tensors = {name: tensor for name, tensor in checkpoint["model"].items() if isinstance(tensor, Tensor)}
    dictionaries = _fairseq_dictionaries(path.parent, task)

    problems = _fairseq_inexpressible(options)
    fits = not problems
    # Before version 3 the stacks had no normalisation at their end, whatever the file holds.
    version = float(tensors["encoder.version"].flatten()[0]) if "encoder.version" in tensors else 1.0
    pre_norm = bool(options.get("encoder_normalize_before", False))
    learned = bool(options.get("encoder_learned_pos", False))
    key_map = dict(_FAIRSEQ)
    if version < 3:
        key_map |= _UNUSED_FINAL_NORM
    if learned:
        key_map |= _FAIRSEQ_LEARNED_POSITIONS
    renamed = rename_keys(tensors, key_map, problems)
    config = None
    if fits and not problems:
        rows = [max(dictionary.values()) + 1 for dictionary in dictionaries]
        for name, place in ((SOURCE_EMBEDDING, 0), (TARGET_EMBEDDING, 1)):
            if rows and name in renamed and len(renamed[name]) != rows[place]:
                problems.append(f"{name} has {len(renamed[name])} rows, its dictionary {rows[place]} tokens")
        vocabularies = [len(renamed[n]) for n in (SOURCE_EMBEDDING, TARGET_EMBEDDING) if n in renamed]
        shared_output = options.get("share_decoder_input_output_embed") or options.get("share_all_embeddings")
        if OUTPUT_PROJECTION not in renamed and not shared_output:
            problems.append("no weight is there for lm_head.weight, although the output shares no embedding")
        if len(vocabularies) < 2:
            problems.append("the two embeddings are not both there")
    if fits and not problems:
        tying = detect_tying(renamed)
        table = renamed.get("model.encoder.embed_positions.weight")
        try:
            config = VanillaTransformerConfig(
                vocab_size=vocabularies[0],
                decoder_vocab_size=None if tying["share_encoder_decoder_embeddings"] else vocabularies[1],
                d_model=options["encoder_embed_dim"],
                d_ff=options["encoder_ffn_embed_dim"],
                num_heads=options["encoder_attention_heads"],
                encoder_layers=_count_layers(tensors, "encoder"),
                decoder_layers=_count_layers(tensors, "decoder"),
                dropout=options.get("dropout", 0.1),
                attention_dropout=options.get("attention_dropout", 0.0),
                activation_dropout=options.get("activation_dropout", 0.0) or options.get("relu_dropout", 0.0),
                activation_function=_FAIRSEQ_ACTIVATIONS[options.get("activation_fn", "relu")],
                norm_position="pre" if pre_norm else "post",
                final_norm="model.encoder.final_norm.weight" in renamed,
                layer_norm_eps=_LAYER_NORM_EPS,
                attention_bias=True,
                scale_embedding=not options.get("no_scale_embedding", False),
                position_embedding_type="learned" if learned else "sinusoidal_t2t",
                position_offset=2,  # padding symbol 1, plus 1
                max_position_embeddings=1024 if table is None else len(table),
                pad_token_id=1,
                bos_token_id=0,
                eos_token_id=2,
                unk_token_id=3,
                decoder_start_token_id=2,
                **tying,
            )
            check_complete(renamed, config, problems)
        except ValueError as error:
            problems.append(str(error))
    refuse(path, "from fairseq", problems)
    assert config is not None
    tokenizer, target_tokenizer = _fairseq_tokenizers(path.parent, dictionaries, task)
    generation = GenerationConfig(
        max_length=DEFAULT_MAX_LENGTH, pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2
    )
    return ImportedCheckpoint(config, renamed, generation, tokenizer, target_tokenizer)


def _fairseq_file(source: Path) -> Path:
    if not source.exists():
        raise FileNotFoundError(f"there is no file or directory {source}")
    if source.is_file():
        return source
    for name in ("model.pt", "checkpoint_best.pt"):
        if (source / name).is_file():
            return source / name
    found = sorted(source.glob("*.pt"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none at all"
        raise ValueError(f"{source} has no model.pt, and of other .pt files it has {names}; name the file itself")
    return found[0]


def _fairseq_options(path: Path, checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the options of model and task: "args" before fairseq 0.10, "cfg" since."""

    def as_dict(options: Any) -> dict[str, Any]:
        return dict(vars(options)) if isinstance(options, argparse.Namespace) else dict(options or {})

    if checkpoint.get("cfg") is not None:
        configuration = as_dict(checkpoint["cfg"])
        return as_dict(configuration.get("model")), as_dict(configuration.get("task"))
    if checkpoint.get("args") is not None:
        options = as_dict(checkpoint["args"])
        return options, options
    raise ValueError(f"{path} has neither 'args' nor 'cfg', so nothing says how many heads its model has")


def _fairseq_inexpressible(options: Mapping[str, Any]) -> list[str]:
    """Name the options that no field of our configuration stands for."""
    problems = []
    for name in ("embed_dim", "ffn_embed_dim", "attention_heads", "normalize_before", "learned_pos"):
        sides = [options.get(f"{side}_{name}") for side in ("encoder", "decoder")]
        if name in ("normalize_before", "learned_pos"):
            sides = [bool(value) for value in sides]
        elif None in sides:
            problems.append(f"the options lack encoder_{name} or decoder_{name}")
            continue
        if sides[0] != sides[1]:
            problems.append(f"encoder_{name} is {sides[0]} and decoder_{name} {sides[1]}, but both stacks are alike")
    for name in (
        "adaptive_input",
        "adaptive_softmax_cutoff",
        "character_embeddings",
        "cross_self_attention",
        "layernorm_embedding",
        "no_cross_attention",
        "no_decoder_final_norm",
        "no_token_positional_embeddings",
    ):
        if options.get(name):
            problems.append(f"{name} is {options[name]!r}, which has no field")
    for name in ("decoder_input_dim", "decoder_output_dim"):
        width = options.get(name)
        if width is not None and width != options.get("decoder_embed_dim"):
            problems.append(f"{name} is {width} and decoder_embed_dim {options.get('decoder_embed_dim')}")
    if (activation := options.get("activation_fn", "relu")) not in _FAIRSEQ_ACTIVATIONS:
        problems.append(f"activation_fn is {activation!r}, which transformers doesn't have")
    return problems


def _count_layers(tensors: Mapping[str, Tensor], stack: str) -> int:
    numbers = {int(match[1]) for name in tensors if (match := re.match(rf"{stack}\.layers\.(\d+)\.", name))}
    return max(numbers, default=-1) + 1


def _fairseq_dictionaries(directory: Path, task: Mapping[str, Any]) -> list[dict[str, int]]:
    """Read dict.<language>.txt of source and target, or nothing, with a warning, if they aren't there."""
    languages = (task.get("source_lang"), task.get("target_lang"))
    paths = [directory / f"dict.{language}.txt" for language in languages]
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        logger.warning(f"{directory} has no {', '.join(absent)}: the result has no tokenizer")
        return []
    return [_read_dictionary(path) for path in paths]


def _read_dictionary(path: Path) -> dict[str, int]:
    """Read a dictionary of fairseq: a token and its count a line, numbered behind the four special symbols."""
    dictionary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    next_number = len(dictionary)  # a token that overwrites a special one leaves the old number without a name
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        token, _, count = line.rstrip().rpartition(" ")
        overwrites = count == "#fairseq:overwrite"
        if overwrites:
            token, _, count = token.rpartition(" ")
        if not token or not count.isdigit():
            raise ValueError(f"line {number} of {path} is no token and its count: {line[:60]!r}")
        if token in dictionary and not overwrites:
            raise ValueError(f"line {number} of {path} has the token {token!r} a second time")
        dictionary[token] = next_number
        next_number += 1
    return dictionary


def _fairseq_tokenizers(
    directory: Path, dictionaries: list[dict[str, int]], task: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Make tokenizers of the dictionaries; the second is None where both are the same.

    With BPE codes beside them, text is what people write (Moses' rules and BPE, as FSMT's stock tokenizer does both).
    Without, text is what `fairseq-interactive` takes: segmented already, white space between the tokens.
    """
    if not dictionaries:
        return None, None
    codes = directory / "bpecodes"
    if codes.is_file():
        with tempfile.TemporaryDirectory() as folder:
            languages = [task["source_lang"], task["target_lang"]]
            _write_fsmt_vocabulary(Path(folder), dictionaries, codes, languages)
            return _fsmt_tokenizers(Path(folder))
    made = [_word_tokenizer(dictionary) for dictionary in dictionaries]
    return made[0], None if dictionaries[0] == dictionaries[1] else made[1]


def _word_tokenizer(dictionary: Mapping[str, int]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(dict(dictionary), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )


def _write_fsmt_vocabulary(folder: Path, dictionaries: list[dict[str, int]], codes: Path, languages: list[str]) -> None:
    """Write the files of FSMT's tokenizer: it marks a word's end ("</w>"), fairseq that a word goes on ("@@")."""
    special = {"<s>", "<pad>", "</s>", "<unk>"}
    for side, dictionary in zip(("src", "tgt"), dictionaries, strict=True):
        marked = {
            token if token in special else token.removesuffix("@@") if token.endswith("@@") else f"{token}</w>": number
            for token, number in dictionary.items()
        }
        (folder / f"vocab-{side}.json").write_text(json.dumps(marked, ensure_ascii=False), encoding="utf-8")
    lines = codes.read_text(encoding="utf-8").split("\n")
    merges = [" ".join(line.split()[:2]) for line in lines if line.strip() and not line.startswith("#version")]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    settings = {"langs": languages, "tokenizer_class": "FSMTTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


__all__ = ["read_fairseq", "read_fsmt", "write_fsmt"]
