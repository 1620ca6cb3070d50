"""Differences between two runs and digests of data; resuming itself is tested in test_checkpointing and test_faults."""

import json

from datasets import Dataset
from test_trainer import examples

from hf_vanilla_transformer.training.resuming import differences
from hf_vanilla_transformer.training.run_identity import data_sha256


def test_differences_are_listed_by_path_without_digests() -> None:
    before = {"a": 1, "b": {"c": [1], "sha256": "00"}, "only": None}
    now = {"a": 1, "b": {"c": [2], "sha256": "ff"}, "new": 3}
    assert differences(before, now) == [
        "b.c ([1] in the checkpoint, [2] now)",
        "b.content",
        "new (None in the checkpoint, 3 now)",
    ]


def test_the_digest_of_data_does_not_depend_on_its_container() -> None:
    data = examples(30)
    digest = data_sha256(data)
    assert digest == data_sha256(Dataset.from_list(data)) == data_sha256(json.loads(json.dumps(data)))
    assert digest != data_sha256(data[::-1])
    other_token = examples(30)
    other_token[7]["labels"][0] += 1
    assert digest != data_sha256(other_token)
    assert data_sha256(iter(data)) is None
    shuffled = Dataset.from_list(data[::-1]).select(range(29, -1, -1))  # Arrow in another order behind an index
    assert data_sha256(shuffled) == digest
