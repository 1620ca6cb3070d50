"""What a run that goes on must share; that it is asked for is tested beside the checkpoints and the faults."""

import json

from datasets import Dataset
from test_trainer import examples

from hf_vanilla_transformer.training.resuming import data_sha256, differences


def test_differences_are_named_by_path_without_digests() -> None:
    before = {"a": 1, "b": {"c": [1], "sha256": "00"}, "only": None}
    now = {"a": 1, "b": {"c": [2], "sha256": "ff"}, "new": 3}
    assert differences(before, now) == ["b.c ([1] there, [2] now)", "b.content", "new (None there, 3 now)"]


def test_data_has_one_digest_however_it_is_held() -> None:
    data = examples(30)
    digest = data_sha256(data)
    assert digest == data_sha256(Dataset.from_list(data)) == data_sha256(json.loads(json.dumps(data)))
    assert digest != data_sha256(data[::-1])
    one_token_else = examples(30)
    one_token_else[7]["labels"][0] += 1
    assert digest != data_sha256(one_token_else)
    assert data_sha256(iter(data)) is None
    shuffled = Dataset.from_list(data[::-1]).select(range(29, -1, -1))  # Arrow in another order behind an index
    assert data_sha256(shuffled) == digest
