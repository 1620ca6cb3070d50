"""What transformers' own beam search can't do in some supported versions, so that no comparison is possible there."""

import inspect

import pytest
from transformers import GenerationMixin

# Versions before this was mended divide the beams' scores by the size of the source's vocabulary.
_COUNTS_BY_SOURCE = "vocab_size = self.config.get_text_config().vocab_size" in inspect.getsource(
    GenerationMixin._beam_search
)


def skip_where_it_needs_one_vocabulary(source_size: int, target_size: int) -> None:
    """Skip the rest of a test that needs a beam search into a vocabulary of another size than the source's."""
    if _COUNTS_BY_SOURCE and source_size != target_size:
        pytest.skip("this transformers' beam search takes the source's vocabulary for the target's; logits are equal")
