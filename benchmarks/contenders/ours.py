"""Ours: the recipe tiny of this package, with its run length scaled to the minutes."""

import json
from typing import Any

from recipe_lengths import scaled_to

from hf_vanilla_transformer import BeamSearchConfig, preset, read_recipe, train, translate

from .job import Contender, Job, Measurements, TrainerBudget
from .task import BATCH, TOKENIZER, Task

RECIPE = "tiny"
NUM_BEAMS = 5
_LOGGING_STEPS = 50
_SIZES = ("d_model", "d_ff", "num_heads", "encoder_layers", "decoder_layers", "dropout")


def sizes(overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the architecture of the recipe, which all contenders share, with ``overrides``."""
    model = read_recipe(RECIPE).model
    config = preset(model.preset, **{**model.overrides, **overrides})
    return {name: getattr(config, name) for name in _SIZES}


def vocabulary_size() -> int:
    """Return the size of the recipe's vocabulary."""
    return int(read_recipe(RECIPE).data.vocab_size)


def recipe_words(job: Job, task: Task) -> list[str]:
    """Return the settings of a run as words of the command line."""
    settings: dict[str, Any] = {
        "train_source": task.path("train", 0),
        "train_target": task.path("train", 1),
        "source_lang": task.languages[0],
        "target_lang": task.languages[1],
        "tokenizer": task.folder / TOKENIZER,
        "output_dir": job.folder,
        "overwrite": "true",
        "metric_tokenize": "none",
        "num_beams": NUM_BEAMS,
        "report_to": "none",
        "logging_steps": _LOGGING_STEPS,
        "seed": job.seed,
    }
    overrides = {**read_recipe(RECIPE).model.overrides, **job.settings.get("config_overrides", {})}
    if overrides:
        settings["config_overrides"] = json.dumps(overrides)
    if job.updates is None:  # only the speed: nothing is evaluated, saved or averaged
        settings |= {
            "max_steps": job.total_updates, "cooldown_steps": 0, "eval_strategy": "no", "save_strategy": "no",
            "average_last": 0, "average_best": 0, "early_stopping_patience": 0,
        }  # fmt: skip
    else:
        for split in ("validation", "test"):
            settings |= {f"{split}_source": task.path(split, 0), f"{split}_target": task.path(split, 1)}
        settings |= scaled_to(job.updates, read_recipe(RECIPE), longest_warmup=0.1)
    return [word for key, value in settings.items() for word in (f"--{key}", str(value))]


def run(job: Job, task: Task) -> dict[str, Any]:
    """Train with `train`, whose last evaluation is the final one."""
    recipe = read_recipe(RECIPE, recipe_words(job, task))
    greedy = BeamSearchConfig(num_beams=1, length_penalty=recipe.search.length_penalty)
    sources = task.lines("validation", 0)

    def translate_validation(model: Any) -> list[str]:
        return translate(model, task.tokenizer, sources, greedy, batch_size=BATCH)

    measurements = Measurements(job, task.validation_bleu)
    budget = TrainerBudget(measurements, translate_validation, task.training_tokens)
    result = train(recipe, [budget])
    found = measurements.record(
        evaluation_seconds=round(budget.clock.paused_seconds, 1),
        parameters=result.record["model"]["parameters"],
        precision=result.record["training"]["precision"],
        recipe={
            key: value
            for key, value in result.record["recipe"]["settings"].items()
            if not key.endswith(("_source", "_target")) and key != "tokenizer"
        },
        averaged=len(result.record["training"]["averaged"]),
    )
    if job.purpose == "final":
        kept = ("bleu", "bleu_signature", "brevity_penalty", "sentences")
        found["final"] = {
            **{key: result.record["training"]["decoding"][key] for key in ("num_beams", "length_penalty")},
            **{
                split: {key: result.scores[split][key] for key in kept if key in result.scores[split]}
                for split in ("validation", "test")
            },
        }
    return found


CONTENDER = Contender(
    "ours",
    "hf_vanilla_transformer, recipe tiny",
    run,
    fixed="the recipe as it is, with its peak learning rate; run length, cooldown and distance of checkpoints are "
    "scaled to the minutes; its average of checkpoints is the final model",
)
