# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Complete a tokenizer for training: a padding token, an EOS token, and a post-processor that appends it.

The changes are saved with the tokenizer, so a reloaded one encodes as the one that the model was trained with.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

logger = logging.get_logger(__name__)

_PADDING, _EOS = "<pad>", "</s>"


def complete_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer with a padding token of its own and with every sentence ending in an EOS token.

    The EOS token is the tokenizer's, else its ``sep_token`` (as in BERT), else a new token ``</s>``. The padding token
    is the tokenizer's, else a new token ``<pad>``; padding must differ from EOS, because padding is not learned.

    Args:
        tokenizer: any Hugging Face tokenizer; it may be changed.
        name: its name in messages.

    Raises:
        ValueError: If it does not append an EOS token and is no fast tokenizer, which could be changed to.
    """
    if tokenizer.eos_token_id is None:
        if tokenizer.sep_token_id is not None:
            tokenizer.eos_token = tokenizer.sep_token
            if tokenizer.bos_token_id is None and tokenizer.cls_token_id is not None:
                tokenizer.bos_token = tokenizer.cls_token
        else:
            _name_token(tokenizer, name, "eos_token", _EOS)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        _name_token(tokenizer, name, "pad_token", _PADDING)
    if "token_type_ids" in tokenizer.model_input_names:  # of BERT; the model has no such input
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    if all(_appends_eos(tokenizer, side) for side in ("text", "text_target")):
        return tokenizer
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer {name} ({type(tokenizer).__name__}) does not append its EOS token {tokenizer.eos_token!r}, "
            f"without which translations don't end; give its tokenizer.json, which can be changed"
        )
    completed = rewrite_tokenizer(tokenizer, lambda content: _append_eos(content, tokenizer))
    if not all(_appends_eos(completed, side) for side in ("text", "text_target")):
        raise ValueError(
            f"the tokenizer {name} cannot be made to append its EOS token {tokenizer.eos_token!r}; add a post-processor"
            " that does to its tokenizer.json"
        )
    logger.info(f"the tokenizer {name} did not append an EOS token; {completed.eos_token!r} is appended now")
    return completed


def rewrite_tokenizer(
    tokenizer: PreTrainedTokenizerBase, edit: Callable[[dict[str, Any]], None]
) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer with an edited ``tokenizer.json``.

    It is of transformers' general class, which loads that file unchanged; the classes of single models build some of
    its parts anew.

    Args:
        tokenizer: a fast tokenizer; it is not changed.
        edit: changes the content of tokenizer.json.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for file, change in (("tokenizer.json", edit), ("tokenizer_config.json", _use_general_class)):
            path = Path(folder) / file
            content = json.loads(path.read_text(encoding="utf-8"))
            change(content)
            path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        rewritten: Any = AutoTokenizer.from_pretrained(folder)
    rewritten.name_or_path = tokenizer.name_or_path
    return rewritten


def _use_general_class(config: dict[str, Any]) -> None:
    config["tokenizer_class"] = PreTrainedTokenizerFast.__name__
    config.pop("auto_map", None)


def _name_token(tokenizer: PreTrainedTokenizerBase, name: str, role: str, token: str) -> None:
    """Set a special token, which is added to the vocabulary if it is not there."""
    new = token not in tokenizer.get_vocab()
    if not new and tokenizer.convert_tokens_to_ids(token) in (tokenizer.eos_token_id, tokenizer.unk_token_id):
        raise ValueError(
            f"the tokenizer {name} uses {token} for something else than {role}; set its {role} and save it"
        )
    tokenizer.add_special_tokens({role: token})
    logger.info(f"the tokenizer {name} had no {role} of its own; {'added' if new else 'using its'} {token}")


def _appends_eos(tokenizer: PreTrainedTokenizerBase, argument: str) -> bool:
    """Return whether an encoded sentence has the EOS token behind its text; a language code may follow."""
    ids = list(tokenizer(**{argument: ["a"]}, add_special_tokens=True, verbose=False)["input_ids"][0])
    return tokenizer.eos_token_id in ids[1:]  # the first is a token of the text, or a BOS token


def _append_eos(content: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Add a step that appends the EOS token to the post-processor in tokenizer.json."""
    eos, eos_id = tokenizer.eos_token, tokenizer.eos_token_id
    text = [{"Sequence": {"id": side, "type_id": 0}} for side in "AB"]
    end = {"SpecialToken": {"id": eos, "type_id": 0}}
    appended = {
        "type": "TemplateProcessing",
        "single": [text[0], end],
        "pair": [text[0], end, text[1], end],
        "special_tokens": {eos: {"id": eos, "ids": [eos_id], "tokens": [eos]}},
    }
    existing = content.get("post_processor")
    steps = [] if existing is None else existing["processors"] if existing["type"] == "Sequence" else [existing]
    content["post_processor"] = {"type": "Sequence", "processors": [*steps, appended]} if steps else appended


__all__ = ["complete_tokenizer", "rewrite_tokenizer"]
