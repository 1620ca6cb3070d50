# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The directory of a training run: what it contains, which run may use it, and how results are written into it.

A run's directory contains::

    recipe.json                  settings and data of the run; it marks the directory as a run's
    recipe.yaml                  the recipe, if its settings were chosen from the amount of text
    checkpoint-<update>/         checkpoints, written by the trainer
    averaged/, averaging.json    the average of checkpoints, and which ones
    config.json, model…, …       the final model with its tokenizer, as `from_pretrained` loads it
    translations/<split>.<lang>  translations of the evaluated splits
    results.json, README.md      the record of the run, and the model card rendered from it
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging

from ..atomic_files import replace_files
from ..checkpoints.averaging import PROVENANCE_NAME, average_checkpoints
from ..checkpoints.checkpoint_directory import CheckpointDirectory
from ..data.corpora import ParallelCorpus
from ..data.splits import SPLITS
from ..json_object import read_json_object
from ..model.tokenizers_vanilla_transformer import TARGET_TOKENIZER
from ..model_card import CARD_NAME, RESULTS_NAME, write_card
from ..version import __version__
from .checkpointing import clear_leftovers
from .recipe import Recipe
from .recipe_choice import RECIPE_FILE
from .record import write_json, write_translations
from .run_lock import LOCK_NAME

logger = logging.get_logger(__name__)

RECIPE_NAME = "recipe.json"
_AVERAGED = "averaged"
_TRANSLATIONS = "translations"
_FILES_OF_A_RUN = (RECIPE_NAME, RESULTS_NAME, CARD_NAME, _AVERAGED, PROVENANCE_NAME, TARGET_TOKENIZER)
_CHECKPOINT = re.compile(r"checkpoint-\d+|\.checkpoint-\d+\.(saving|replaced|deleting)")
_INCOMPLETE = (".saving", ".deleting")  # suffixes of checkpoints that are being written or deleted
# What a process may leave that ended before it wrote recipe.json.
_BEFORE_THE_START = re.compile(re.escape(LOCK_NAME) + r".*|\.?recipe(\.json)?(\.\d+)?\.tmp")


class RunDirectory:
    """The directory of a training run.

    Args:
        path: the directory; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    # ------------------------------------------------------------------ the start of a run

    def start(self, recipe: Recipe, corpora: dict[str, ParallelCorpus], *, writing: bool) -> str | None:
        """Prepare the directory for a run, and return the checkpoint to resume from, or None.

        Args:
            recipe: whether to delete an earlier run or where to resume from; its settings identify the run.
            corpora: their hashes identify the run as well.
            writing: whether this process prepares the directory; with several processes, only one does.

        Raises:
            ValueError: If the directory contains other files or another run, or the checkpoint to resume from is
                missing.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"output_dir {self.path} is a file; name a directory")
        checkpoint = named_checkpoint(recipe)
        if checkpoint is not None and not Path(checkpoint).is_dir():
            raise ValueError(f"there is no checkpoint directory {checkpoint} to resume from")
        if not writing:
            return checkpoint or get_last_checkpoint(str(self.path))
        identity = {
            "settings": recipe.identity,
            "data": {split: corpus.report.sha256 for split, corpus in corpora.items() if corpus.report.complete},
        }
        if self._is_in_use():
            if not (self.path / RECIPE_NAME).is_file():
                raise ValueError(
                    f"output_dir {self.path} contains files that no training run has written; choose an empty or new "
                    "directory"
                )
            if recipe.run.overwrite:
                self.delete_run()
            elif checkpoint is None:
                if self.has_trained():
                    self._check_same_run(identity, recipe.training.resume_anyway)
                clear_leftovers(self.path)
                checkpoint = get_last_checkpoint(str(self.path))
                if checkpoint is not None:
                    logger.warning(f"{self.path} contains a run of this recipe; resuming from {checkpoint}")
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / RECIPE_NAME, {**identity, "hf_vanilla_transformer": __version__})
        yaml = self.path / RECIPE_FILE
        if recipe.chosen_text is not None and not (checkpoint is not None and yaml.is_file()):  # it may be edited
            yaml.write_text(recipe.chosen_text, encoding="utf-8")
        return checkpoint

    def _is_in_use(self) -> bool:
        return self.path.is_dir() and any(not _BEFORE_THE_START.fullmatch(path.name) for path in self.path.iterdir())

    def has_trained(self) -> bool:
        """Return whether there is a checkpoint, a final model or a result, which another run would replace."""
        return any(
            name in (RESULTS_NAME, SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
            or (_CHECKPOINT.fullmatch(name) and not name.endswith(_INCOMPLETE))
            for name in (path.name for path in self.path.iterdir())
        )

    def _check_same_run(self, identity: dict[str, Any], resume_anyway: bool) -> None:
        """Raise ValueError if the directory's run has other settings or data; with ``resume_anyway`` only warn."""
        recorded = read_json_object(self.path / RECIPE_NAME)
        differences = []
        for part, prefix in (("settings", ""), ("data", "data of ")):
            before, now = recorded.get(part), identity[part]
            if not isinstance(before, dict):
                raise ValueError(
                    f"{self.path / RECIPE_NAME} does not contain the run's {part}; choose another --output_dir"
                )
            for key in sorted(before.keys() | now.keys()):
                if before.get(key) != now.get(key):
                    values = f" ({before.get(key)} there, {now.get(key)} now)" if part == "settings" else ""
                    differences.append(f"{prefix}{key}{values}")
        if not differences:
            return
        text = f"output_dir {self.path} contains another run, which differs in {', '.join(differences)}"
        if not resume_anyway:
            raise ValueError(f"{text}; choose another --output_dir, or delete that run with --overwrite")
        logger.warning(f"{text}; resuming it because resume_anyway is set")

    def delete_run(self) -> None:
        """Delete what a run has written. The directory and other files in it stay."""
        logger.info(f"deleting the earlier run in {self.path}")
        written = [path for split in SPLITS for path in (self.path / _TRANSLATIONS).glob(f"{split}.*")]
        for path in [*self.path.iterdir(), *written]:
            is_checkpoint = _CHECKPOINT.fullmatch(path.name) and path.is_dir()
            if path.name in _FILES_OF_A_RUN or is_checkpoint or path in written:
                logger.debug(f"deleting {path}")
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    # ------------------------------------------------------------------ averaging

    def write_average(self, last: int, best: int) -> None:
        """Average the last or the best checkpoints into averaged/, fewer if there are not as many.

        Args:
            last: number of last checkpoints; 0 averages the best instead.
            best: number of checkpoints with the lowest validation loss.
        """
        wanted, found = last or best, len(list(self.path.glob("checkpoint-*")))
        if found < wanted:
            logger.warning(f"the run has only {found} of the {wanted} checkpoints to average; averaging all of them")
        number = min(wanted, found)
        choice: dict[str, Any] = {"last": number} if last else {"best": number, "metric": "eval_loss"}
        average_checkpoints(self.path, self.path / _AVERAGED, overwrite=True, **choice)
        shutil.copyfile(self.path / _AVERAGED / PROVENANCE_NAME, self.path / PROVENANCE_NAME)

    def load_average(self) -> PreTrainedModel:
        """Load the model in averaged/."""
        return AutoModelForSeq2SeqLM.from_pretrained(self.path / _AVERAGED)

    def averaged_checkpoints(self) -> list[str]:
        """List the names of the checkpoints that were averaged."""
        provenance = json.loads((self.path / PROVENANCE_NAME).read_text(encoding="utf-8"))
        return [member["name"] for member in provenance["checkpoints"]]

    def averaged_updates(self) -> list[int]:
        """List the updates after which the averaged checkpoints were saved."""
        provenance = json.loads((self.path / PROVENANCE_NAME).read_text(encoding="utf-8"))
        return [member["step"] for member in provenance["checkpoints"]]

    # ------------------------------------------------------------------ results

    def save_tokenizer(self, tokenizer: Any) -> None:
        """Save the tokenizer, or both tokenizers, beside the final model."""
        replace_files(self.path, tokenizer.save_pretrained)

    def save_model(self, model: PreTrainedModel) -> None:
        """Save the final model, and delete weight files of an earlier one, which would be loaded instead."""
        written: list[str] = []
        replace_files(self.path, _listing(model.save_pretrained, written))
        for path in CheckpointDirectory(self.path).stale_weight_files(written):
            path.unlink()

    def write_translations(self, split: str, language: str, translations: list[str]) -> None:
        """Write the translations of a split, one per line."""
        write_translations(self.path / _TRANSLATIONS / f"{split}.{language}", translations)

    def write_results(self, record: dict[str, Any]) -> None:
        """Write the record of the run, and render the model card from it."""
        write_json(self.path / RESULTS_NAME, record)
        write_card(self.path)


def named_checkpoint(recipe: Recipe) -> str | None:
    """Return the checkpoint that the recipe names to resume from; None for the last one, which is the default."""
    asked = recipe.training.resume_from_checkpoint
    return None if asked is None or asked.lower() in ("true", "yes", "last") else asked


def _listing(save: Callable[[str], Any], written: list[str]) -> Callable[[str], None]:
    """Wrap a function that writes files so that it adds their names to a list."""

    def save_and_list(folder: str) -> None:
        save(folder)
        written.extend(path.name for path in Path(folder).iterdir())

    return save_and_list


__all__ = ["RECIPE_NAME", "RunDirectory", "named_checkpoint"]
