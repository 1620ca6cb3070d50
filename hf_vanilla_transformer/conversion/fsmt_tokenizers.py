# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The tokenizers of FSMT: Moses' rules and BPE, one vocabulary per side."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .fairseq_family import require_packages
from .foreign_files import load_tokenizer


def load_fsmt_tokenizers(source: Path) -> tuple[Any, Any]:
    """Load FSMT's tokenizer, which encodes the source and decodes the target, and build one for the target alone.

    The second one encodes references. It is None if both sides have the same vocabulary. Both are None, with a warning,
    if a file is missing.

    Args:
        source: a directory with vocab-src.json, vocab-tgt.json and merges.txt.

    Raises:
        ImportError: If sacremoses is not installed.
    """
    require_packages(("sacremoses", "joblib"), "FSMT", "sacremoses")
    from transformers import FSMTTokenizer

    tokenizer = load_tokenizer(FSMTTokenizer, source, ("vocab-src.json", "vocab-tgt.json", "merges.txt"))
    if tokenizer is None:
        return None, None
    tokenizer.eos_token = tokenizer.sep_token  # the same token; FSMT's files name it sep_token only
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


def write_fsmt_tokenizer(
    directory: Path, dictionaries: Sequence[Mapping[str, int]], codes: Path, languages: Sequence[str]
) -> None:
    """Write the files of FSMT's tokenizer for fairseq's dictionaries and BPE codes.

    FSMT marks the end of a word ("</w>"); fairseq marks a token that is continued ("@@").

    Args:
        directory: an existing one.
        dictionaries: token → id, of source and target.
        codes: the file of BPE codes.
        languages: of source and target.
    """
    special = {"<s>", "<pad>", "</s>", "<unk>"}
    for side, dictionary in zip(("src", "tgt"), dictionaries, strict=True):
        marked = {
            token if token in special else token.removesuffix("@@") if token.endswith("@@") else f"{token}</w>": number
            for token, number in dictionary.items()
        }
        (directory / f"vocab-{side}.json").write_text(json.dumps(marked, ensure_ascii=False), encoding="utf-8")
    lines = codes.read_text(encoding="utf-8").split("\n")
    merges = [" ".join(line.split()[:2]) for line in lines if line.strip() and not line.startswith("#version")]
    (directory / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    settings = {"langs": languages, "tokenizer_class": "FSMTTokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


__all__ = ["load_fsmt_tokenizers", "write_fsmt_tokenizer"]
