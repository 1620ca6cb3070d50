# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from datasets import Dataset, IterableDataset

from hf_vanilla_transformer.data.splits import EmbeddedPairs, HubDataset, Tables, TextFiles, load_splits


def test_each_split_comes_from_its_own_kind_of_source(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.ko").write_text("일\n이\n")
    (tmp_path / "b.csv").write_text("q,a\nthree,삼\n")
    sources = {
        "train": TextFiles(tmp_path / "a.en", tmp_path / "a.ko"),
        "validation": Tables(tmp_path / "b.csv", "q", "a"),
        "test": EmbeddedPairs(3),
    }
    corpora = load_splits(sources, source_lang="en", target_lang="ko")
    assert list(corpora) == ["train", "validation", "test"]
    assert corpora["train"].sides() == (["one", "two"], ["일", "이"])
    assert list(corpora["validation"].sentences()) == ["three", "삼"]
    assert corpora["test"].report.pairs_kept == 3
    assert all(corpus.languages == ("en", "ko") for corpus in corpora.values())


def test_only_the_training_split_leaves_pairs_out_and_only_it_is_streamed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("en,ko\n,empty\nwho,누구\n")
    sources = {split: Tables(tmp_path / "t.csv") for split in ("train", "test")}
    corpora = load_splits(sources, source_lang="en", target_lang="ko")
    assert [corpus.report.pairs_kept for corpus in corpora.values()] == [1, 2]
    streamed = load_splits(sources, source_lang="en", target_lang="ko", streaming=True)
    assert isinstance(streamed["train"].dataset, IterableDataset) and isinstance(streamed["test"].dataset, Dataset)
    assert streamed["train"].languages == ("en", "ko")
    assert list(streamed["train"].sentences()) == ["who", "누구"]


def test_a_dataset_is_loaded_by_name_configuration_and_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dev.jsonl").write_text('{"translation": {"en": "one", "ko": "일"}}\n')
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files:\n  - split: dev\n    path: data/dev.jsonl\n---\n"
    )
    sources = {"validation": HubDataset(str(tmp_path), "small", "dev")}
    corpora = load_splits(sources, source_lang="ko", target_lang="en")
    assert corpora["validation"].sides() == (["일"], ["one"])
