# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Which cross-attention heads align words: chosen by the caller, stored with the checkpoint, or the default."""

import re
from dataclasses import dataclass
from typing import Any

_TEXT = re.compile(r"(\d+)(?:\.(\d+))?(\+1)?")


@dataclass(frozen=True)
class AlignmentHeads:
    """The cross-attention heads whose mean weights align words.

    In text form, "2.1" is layer 2, head 1 and "2" is the mean over all heads of layer 2; layers and heads are counted
    from 0. "+1" at the end sets ``shift``: "2.1+1".

    Attributes:
        layer: of the decoder.
        head: of the layer; None is the mean over all heads.
        shift: whether a word's weights are those of the next decoder step, which reads the word (Chen et al. 2020), or
            those of the step that predicts it (Garg et al. 2019).
    """

    layer: int
    head: int | None = None
    shift: bool = False

    def __str__(self) -> str:
        """Return the text form."""
        return f"{self.layer}{'' if self.head is None else f'.{self.head}'}{'+1' if self.shift else ''}"

    @classmethod
    def parse(cls, text: str) -> "AlignmentHeads":
        """Read the text form.

        Raises:
            ValueError: If it has another form.
        """
        found = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ValueError(
                f"alignment_head={text!r} is not LAYER.HEAD; write e.g. 2.1, or 2 for the mean over the heads of layer "
                "2 (both counted from 0)"
            )
        head = None if found[2] is None else int(found[2])
        return cls(int(found[1]), head, shift=found[3] is not None)

    @classmethod
    def of(cls, model: Any, wanted: "AlignmentHeads | str | None" = None) -> "AlignmentHeads":
        """Return the heads for a model: the ones wanted, else those stored with it, else the default.

        The default is the mean over the heads of the last layer but one (Garg et al. 2019), and of the last layer where
        there are only one or two.

        Raises:
            ValueError: If the model does not have them.
        """
        layers, number = model.config.decoder_layers, model.config.num_heads
        if wanted is not None:
            heads = cls.parse(wanted) if isinstance(wanted, str) else wanted
        else:
            heads = stored_heads(model) or cls(layers - 2 if layers > 2 else layers - 1)
        if heads.layer >= layers or (heads.head is not None and heads.head >= number):
            raise ValueError(
                f"alignment_head={str(heads)!r} is not in the model, which has layers 0 to {layers - 1} with heads 0 "
                f"to {number - 1}"
            )
        return heads


def stored_heads(model: Any) -> AlignmentHeads | None:
    """Return the heads in a model's generation configuration; None if it has none.

    Raises:
        ValueError: If they have another form.
    """
    pairs = getattr(model.generation_config, "alignment_heads", None)
    if pairs is None:
        return None
    try:
        layers, heads = {int(layer) for layer, _ in pairs}, [int(head) for _, head in pairs]
        (layer,) = layers
        is_mean = sorted(heads) == list(range(model.config.num_heads)) and len(heads) > 1
        if not is_mean:
            (head,) = heads
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"alignment_heads={pairs!r} in generation_config.json are not one [layer, head], nor all heads of a layer; "
            "choose heads with `vanilla-transformer align --choose-head`"
        ) from error
    return AlignmentHeads(
        layer, None if is_mean else head, bool(getattr(model.generation_config, "alignment_shift", 0))
    )


def store_heads(model: Any, heads: AlignmentHeads) -> None:
    """Write the heads into a model's generation configuration, which `save_pretrained` saves.

    ``alignment_heads`` is a list of [layer, head], as in transformers' Whisper.
    """
    numbers = range(model.config.num_heads) if heads.head is None else [heads.head]
    model.generation_config.alignment_heads = [[heads.layer, head] for head in numbers]
    model.generation_config.alignment_shift = int(heads.shift)
    # Where this is True, from_pretrained derives the settings from config.json and drops all others.
    model.generation_config._from_model_config = False


__all__ = ["AlignmentHeads", "store_heads", "stored_heads"]
