"""A recipe's run, scaled to another number of updates."""

from typing import Any


def scaled_to(updates: int, recipe: Any, longest_warmup: float = 0.25) -> dict[str, int]:
    """Return the settings that scale the run of a recipe to another number of updates.

    Length, cooldown and the distance between checkpoints are multiplied by the same factor, so that as many checkpoints
    as before are averaged over the same share of the run. The warm-up stays, but is at most a share of the run.

    Args:
        updates: The new ``max_steps``.
        recipe: What ``read_recipe`` returns.
        longest_warmup: The largest share of the run that the warm-up may take.

    Raises:
        ValueError: If the recipe has no ``max_steps``.
    """
    training = recipe.training
    if training.max_steps < 1:
        raise ValueError(f"recipe {recipe.name} has no max_steps, from which its run length could be scaled")
    factor = updates / training.max_steps
    scaled = {"max_steps": updates, "cooldown_steps": min(round(training.cooldown_steps * factor), updates)}
    if "eval_steps" in recipe.settings:
        # Trainer keeps the best checkpoint only if each evaluation lies at a checkpoint, or each checkpoint at one.
        shortest = max(round(min(training.save_steps, training.eval_steps) * factor), 1)
        for key in ("save_steps", "eval_steps"):
            intervals = max(round(getattr(training, key) / min(training.save_steps, training.eval_steps)), 1)
            scaled[key] = shortest * intervals
    else:
        scaled["save_steps"] = max(round(training.save_steps * factor), 1)
    if training.warmup_steps >= 1:  # below 1 it is a share of the run
        scaled["warmup_steps"] = min(int(training.warmup_steps), max(int(updates * longest_warmup), 1))
    return scaled
