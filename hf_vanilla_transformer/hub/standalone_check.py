# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Load a checkpoint in a process that cannot import this package, and compare its translations with the original's."""

import json
import os
import subprocess
import sys
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils import logging

from ..model.pipeline_vanilla_transformer import TranslationPipeline
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from ..plausibility import doubtful_translations

logger = logging.get_logger(__name__)

CHECK_TEXTS = ("two hundred and seven", "Attention is all you need.", "삼백이십만 오")
_TIMEOUT = 900  # seconds
_TOKEN_VARIABLES = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "HF_OIDC_ID_TOKEN"}

_PROGRAM = """
import importlib.abc, json, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_vanilla_transformer":
            raise ModuleNotFoundError("hf_vanilla_transformer is hidden here", name=name)
sys.meta_path.insert(0, Hidden())
from transformers import AutoTokenizer, pipeline
folder, output, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
translator = pipeline("translation", model=folder, trust_remote_code=True, device="cpu")
with open(output, "w", encoding="ascii") as file:
    json.dump(translator(texts, return_scores=True), file)
"""


def check_without_package(folder: Path, model: PreTrainedModel, tokenizers: TranslationTokenizers, work: Path) -> int:
    """Load a checkpoint offline, without this package and without a token, and compare translations and scores.

    Args:
        folder: the checkpoint with the model's code.
        model, tokenizers: the original, which is run in this process.
        work: a directory for temporary files.

    Returns:
        The number of translations compared.

    Raises:
        ValueError: If the checkpoint cannot be loaded, or translates differently.
    """
    texts = list(CHECK_TEXTS)
    pipeline = TranslationPipeline(model, tokenizers, device="cpu")
    expected = pipeline(texts, return_scores=True)
    if warning := doubtful_translations(texts, [translation["translation_text"] for translation in expected]):
        logger.warning(f"in the check before the push, {warning}")
    output = work / "translations.json"
    environment = {name: value for name, value in os.environ.items() if name not in _TOKEN_VARIABLES}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(work / "home"),
        "HF_MODULES_CACHE": str(work / "modules"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(folder), str(output), json.dumps(texts)],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"loading the checkpoint without this package took more than {_TIMEOUT} seconds") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"the checkpoint cannot be loaded without this package, so it was not sent: {last}")
    found = json.loads(output.read_text(encoding="ascii"))
    for text, ours, theirs in zip(texts, expected, found, strict=True):
        same = ours["translation_text"] == theirs["translation_text"]
        if not same or abs(ours["score"] - theirs["score"]) > 1e-3 * max(1.0, abs(ours["score"])):
            raise ValueError(
                f"without this package, the checkpoint translates {text!r} differently ({theirs} instead of {ours}), "
                "so it was not sent"
            )
    return len(texts)


__all__ = ["CHECK_TEXTS", "check_without_package"]
