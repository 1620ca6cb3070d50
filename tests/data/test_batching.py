"""Token-budget batches: what fits, what repeats, what is wasted, and how ranks share the work."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, skip_first_batches
from datasets import Dataset
from datasets import IterableDataset as StreamedDataset
from hypothesis import given, settings
from hypothesis import strategies as st
from platforms import posix_only
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.trainers import BpeTrainer
from torch.utils.data import DataLoader

from hf_vanilla_transformer.data.batching import TokenBudget, TokenBudgetSampler, TokenBudgetStream, example_lengths
from hf_vanilla_transformer.data.slots import cut_evenly

DATA = os.environ.get("VANILLA_TRANSFORMER_DATA")


def sentence_lengths(number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Source and target lengths that go together as in translation: log-normal, targets 0.8 to 1.3 times as long."""
    rng = np.random.default_rng(seed)
    source = np.exp(rng.normal(2.7, 0.5, number)).astype(int) + 2
    return source, (source * rng.uniform(0.8, 1.3, number)).astype(int) + 1


def padded(batch: list[int], lengths: np.ndarray) -> int:
    return len(batch) * int(lengths[batch].max())


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=80),
    budget=st.integers(10, 200),
    num_ranks=st.integers(1, 3),
    accumulation_steps=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_every_batch_fits_and_every_example_comes_once(lengths, budget, num_ranks, accumulation_steps, epoch):
    source, target = np.array(lengths).T
    micro = budget // (num_ranks * accumulation_steps)
    fits = {i for i, pair in enumerate(lengths) if min(pair) > 0 and max(pair) <= micro}
    options = dict(num_ranks=num_ranks, accumulation_steps=accumulation_steps)
    if not fits:
        with pytest.raises(ValueError, match="none of"):
            TokenBudgetSampler(source, target, budget, **options)
        return
    by_rank = []
    for rank in range(num_ranks):
        sampler = TokenBudgetSampler(source, target, budget, rank=rank, **options)
        sampler.set_epoch(epoch)
        by_rank.append(list(sampler))
        assert len(by_rank[-1]) == len(sampler)  # and all equal:
        assert len(by_rank[-1]) == len(by_rank[0])
    updates = [
        [batch for rank in by_rank for batch in rank[start : start + accumulation_steps]]
        for start in range(0, len(by_rank[0]), accumulation_steps)
    ]
    for update in updates:
        for side in (source, target):
            assert all(0 < padded(batch, side) < micro + side[batch].max() for batch in update)
            whole = [index for batch in update for index in batch]
            assert len(set(whole)) * side[whole].max() <= budget
        # Shared out by positions, not by number: a micro-batch of short examples may have more of them.
        by_number = -(-len(whole) // len(update)) * (source[whole].max() + target[whole].max())
        assert all(padded(batch, source) + padded(batch, target) <= by_number for batch in update)
    seen = [index for update in updates for batch in update for index in batch]
    assert set(seen) == fits
    repeated = [update for update in updates if len(update) > len({index for batch in update for index in batch})]
    assert len(repeated) <= 2  # only the last two, which share what is left, can be too few for all micro-batches
    assert len(seen) - len(fits) == sum(
        len(update) - len({index for batch in update for index in batch}) for update in repeated
    )
    assert set(sampler.skipped) == set(range(len(lengths))) - fits


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=10), data=st.data())
def test_the_costliest_part_of_an_even_cut_has_the_fewest_positions_of_all_cuts(lengths, data):
    source, target = np.array(sorted(lengths)).T
    parts = data.draw(st.integers(1, len(lengths)))
    longest_side = -(-len(lengths) // parts) * max(source.max(), target.max())  # of a part, dealt out by number

    def costliest(starts: tuple[int, ...]) -> int | None:
        batches = [list(part) for part in np.split(np.arange(len(lengths)), starts[1:])]
        if any(max(padded(batch, source), padded(batch, target)) > longest_side for batch in batches):
            return None
        return max(padded(batch, source) + padded(batch, target) for batch in batches)

    cuts = ((0, *inner) for inner in itertools.combinations(range(1, len(lengths)), parts - 1))
    best = min(cost for cost in map(costliest, cuts) if cost is not None)
    found = costliest(tuple(cut_evenly(source, target, parts).tolist()))
    assert found is not None and best <= found <= max(best + 1, best * 1.005)


def test_an_epoch_is_a_pure_function_of_seed_and_number():
    source, target = sentence_lengths(500)
    one, two = (TokenBudgetSampler(source, target, 512, seed=3) for _ in range(2))
    one.set_epoch(2)
    list(one)
    one.set_epoch(1)  # going back is as good as never having left
    two.set_epoch(1)
    assert list(one) == list(two)
    assert one.plan(1) != one.plan(2)
    assert one.plan(1) != TokenBudgetSampler(source, target, 512, seed=4).plan(1)


def test_number_of_batches_is_the_same_in_every_epoch():
    source, target = sentence_lengths(2000)
    sampler = TokenBudgetSampler(source, target, 700, num_ranks=3)
    assert {len(sampler.plan(epoch)) for epoch in range(10)} == {len(sampler)}


def test_no_epoch_pads_more_than_the_sorted_order():
    source, target = sentence_lengths(10_000)
    sampler = TokenBudgetSampler(source, target, 2048)
    for epoch in range(3):
        plan = sampler.plan(epoch)
        positions = sum(padded(batch, source) + padded(batch, target) for batch in plan)
        assert 1 - (source.sum() + target.sum()) / positions <= sampler.padding + 1e-12
    assert sampler.padding < 0.08


def test_members_and_order_of_batches_change_from_epoch_to_epoch():
    source, target = sentence_lengths(10_000)
    sampler = TokenBudgetSampler(source, target, 2048)
    first, second = sampler.plan(0), sampler.plan(1)
    same = {frozenset(batch) for batch in first} & {frozenset(batch) for batch in second}
    assert len(same) <= 0.1 * len(first)  # only the few longest sentences can not be swapped
    # Not in order of length: neighbours differ in length nearly as much as any two batches (sorted: near 0).
    means = np.array([target[batch].mean() for batch in first])
    assert np.abs(np.diff(means)).mean() > 0.7 * np.abs(means[:, None] - means[None, :]).mean()


def test_long_and_empty_examples_are_counted_and_reported(monkeypatch):
    messages = []
    monkeypatch.setattr("hf_vanilla_transformer.data.batching.logger.warning", messages.append)
    # 8 tokens per update on 2 ranks: 4 per micro-batch; max_length 3 is stricter.
    sampler = TokenBudgetSampler([3, 5, 3, 4, 0], [3, 1, 9, 1, 2], 8, num_ranks=2, max_length=3)
    assert sampler.skipped == [1, 2, 3, 4]
    assert messages == [
        "4 of 5 examples (80.0%) are left out of training, the first is example 2: 3 with more than 3 tokens on one "
        "side, 1 with an empty side; the longest has 9 tokens: split long texts into sentences, or raise the maximum "
        "length (max_sentence_tokens)"
    ]


def test_an_error_tells_what_to_do_if_no_example_fits():
    with pytest.raises(ValueError, match=r"none of 2 examples fits: a batch takes 2 tokens per side .* raise max_"):
        TokenBudgetSampler([3, 4], [3, 4], 8, num_ranks=2, accumulation_steps=2)


@pytest.mark.parametrize("options", [{"num_ranks": 0}, {"num_ranks": 2, "rank": 2}, {"accumulation_steps": 0}])
def test_impossible_ranks_are_refused(options):
    with pytest.raises(ValueError, match="are invalid; num_ranks"):
        TokenBudgetSampler([1], [1], 10, **options)


def test_lengths_that_differ_in_number_are_refused():
    with pytest.raises(ValueError, match="2 source lengths and 1 target lengths"):
        TokenBudgetSampler([1, 1], [1], 10)


@pytest.mark.parametrize(("num_ranks", "accumulation_steps"), [(2, 1), (1, 4), (4, 2), (3, 1)])
def test_an_update_is_made_of_the_same_examples_in_every_layout(num_ranks, accumulation_steps):
    source, target = sentence_lengths(2000)
    alone = TokenBudgetSampler(source, target, 2400)
    shared = TokenBudgetSampler(source, target, 2400, num_ranks=num_ranks, accumulation_steps=accumulation_steps)
    assert not shared.skipped
    parts = num_ranks * accumulation_steps
    plan = shared.plan(2)
    updates = [sum(plan[start : start + parts], []) for start in range(0, len(plan), parts)]
    assert [sorted(update) for update in updates] == [sorted(batch) for batch in alone.plan(2)]


def test_ranks_work_on_batches_of_about_the_same_size():
    source, target = sentence_lengths(30_000)
    sampler = TokenBudgetSampler(source, target, 8 * 4096, num_ranks=8)
    cost = np.array([padded(batch, source) + padded(batch, target) for batch in sampler.plan(0)]).reshape(-1, 8)
    assert (cost.max(axis=1) / cost.mean(axis=1)).mean() <= 1.05


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_accelerate_deals_out_every_batch_and_finds_the_epoch(num_ranks):
    source, target = sentence_lengths(300)
    sampler = TokenBudgetSampler(source, target, 400, num_ranks=num_ranks)
    loaders = [
        DataLoaderShard(
            list(range(300)),
            batch_sampler=BatchSamplerShard(sampler, num_ranks, rank) if num_ranks > 1 else sampler,
            collate_fn=list,
        )
        for rank in range(num_ranks)
    ]
    for epoch in (0, 1):
        seen = []
        for rank, loader in enumerate(loaders):
            loader.set_epoch(epoch)
            batches = list(loader)
            assert batches == sampler.plan(epoch)[rank::num_ranks]
            seen += [index for batch in batches for index in batch]
        assert sorted(seen) == list(range(300))


def test_a_skipped_start_leaves_the_rest_of_the_epoch_as_it_was():
    source, target = sentence_lengths(300)
    sampler = TokenBudgetSampler(source, target, 400)
    loader = skip_first_batches(DataLoaderShard(list(range(300)), batch_sampler=sampler, collate_fn=list), 3)
    loader.set_epoch(2)
    assert list(loader) == sampler.plan(2)[3:]


# --------------------------------------------------------------------------- lengths and streams


def examples_of(number: int) -> list[dict[str, list[int]]]:
    source, target = sentence_lengths(number)
    return [{"input_ids": [1] * s, "labels": [2] * t} for s, t in zip(source, target, strict=True)]


def test_lengths_of_a_selected_dataset_are_those_of_the_selection():
    examples = examples_of(20)
    chosen = Dataset.from_list(examples).select([5, 3, 11])
    assert example_lengths(chosen, "labels").tolist() == [len(examples[i]["labels"]) for i in (5, 3, 11)]
    assert example_lengths(examples[:2], "labels").tolist() == [len(example["labels"]) for example in examples[:2]]


@pytest.mark.parametrize("data", [Dataset.from_dict({"text": ["a"]}), [{"text": "a"}]])
def test_data_without_tokens_is_an_error_that_says_what_to_do(data):
    with pytest.raises(ValueError, match="no column 'input_ids' of token lists; encode the text first"):
        example_lengths(data, "input_ids")


def test_a_stream_gives_each_example_once_within_the_budget():
    examples = [{**example, "number": [i]} for i, example in enumerate(examples_of(500))]
    seen, counts = [], []
    for rank in range(2):
        stream = TokenBudgetStream(examples, 800, num_ranks=2, rank=rank, pool_size=150, max_length=40)
        batches = list(DataLoader(stream, batch_size=None, collate_fn=list))
        counts.append(len(batches))
        for batch in batches:
            for side in ("input_ids", "labels"):
                longest = max(len(example[side]) for example in batch)
                assert len(batch) * longest < 400 + longest
            seen += [example["number"][0] for example in batch]
    assert counts[0] == counts[1]
    short = [i for i, e in enumerate(examples) if max(len(e["input_ids"]), len(e["labels"])) <= 40]
    assert sorted(seen) == short
    assert stream.skipped == 500 - len(short)


def test_sampler_and_stream_take_the_same_settings_as_one_object():
    budget = TokenBudget(800, num_ranks=2, rank=1, accumulation_steps=2, max_length=30, seed=3)
    source, target = sentence_lengths(200)
    flat = dict(num_ranks=2, rank=1, accumulation_steps=2, max_length=30, seed=3)
    assert list(TokenBudgetSampler.from_budget(source, target, budget)) == list(
        TokenBudgetSampler(source, target, 800, **flat)
    )
    stream = TokenBudgetStream.from_budget(examples_of(200), budget, pool_size=70)
    assert list(stream) == list(TokenBudgetStream(examples_of(200), 800, pool_size=70, **flat))
    assert (budget.micro_batches, budget.micro_batch_tokens, budget.longest_example) == (4, 200, 30)


def test_a_streams_epochs_differ_and_repeat():
    stream = TokenBudgetStream(StreamedDataset.from_generator(lambda: iter(examples_of(200))), 300, pool_size=80)
    first, again = list(stream), list(stream)
    stream.set_epoch(1)
    assert first == again
    assert list(stream) != first


def test_an_endless_stream_continues_with_the_next_epoch():
    once = TokenBudgetStream(examples_of(60), 300)
    first = list(once)
    once.set_epoch(1)
    second = list(once)
    endless = iter(TokenBudgetStream(examples_of(60), 300, endless=True))
    assert [next(endless) for _ in range(len(first) + len(second))] == first + second


def numbered(files: list[int]) -> Iterator[dict[str, list[int]]]:
    """Yield what is in "files" of 100 examples each."""
    everything = examples_of(400)
    for file in files:
        for i in range(100 * file, 100 * file + 100):
            yield {**everything[i], "number": [i]}


@posix_only
@pytest.mark.parametrize("kind", ["list", "files"])
def test_loader_workers_divide_a_stream(kind):
    if kind == "list":
        examples = list(numbered([0, 1, 2, 3]))
    else:
        examples = StreamedDataset.from_generator(numbered, gen_kwargs={"files": [0, 1, 2, 3]})
    ranks = []
    for rank in (0, 1):
        stream = TokenBudgetStream(examples, 600, num_ranks=2, rank=rank, pool_size=80)
        loader = DataLoader(stream, batch_size=None, collate_fn=list, num_workers=2, multiprocessing_context="fork")
        ranks.append([[example["number"][0] for example in batch] for batch in loader])
    assert len(ranks[0]) == len(ranks[1])
    assert sorted(sum(ranks[0] + ranks[1], [])) == list(range(400))
    for one, two in zip(*ranks, strict=True):  # what the ranks do at the same time comes from the same worker
        sides = [{i % 2 if kind == "list" else i // 100 % 2 for i in batch} for batch in (one, two)]
        assert sides[0] == sides[1] and len(sides[0]) == 1


def test_a_stream_of_too_few_files_for_its_workers_is_refused():
    examples = StreamedDataset.from_generator(numbered, gen_kwargs={"files": [0]})
    loader = DataLoader(TokenBudgetStream(examples, 600), batch_size=None, num_workers=2, collate_fn=list)
    with pytest.raises(ValueError, match="a stream of 1 files can't be shared among 2 loader workers; set dataloader_"):
        list(loader)


def test_a_stream_without_a_fitting_example_ends_in_an_error():
    with pytest.raises(ValueError, match=r"ended without an example that fits \(9 were left out\)"):
        list(TokenBudgetStream(examples_of(9), 300, max_length=1, endless=True))


# --------------------------------------------------------------------------- real text


@pytest.mark.skipif(not DATA, reason="VANILLA_TRANSFORMER_DATA names no folder with multi30k/ and koen/")
@pytest.mark.parametrize(
    ("source", "target"),
    [("multi30k/lc.norm.tok/train.en", "multi30k/lc.norm.tok/train.de"), ("koen/train.en", "koen/train.ko")],
)
def test_padding_on_real_text_is_at_most_eight_percent(source, target):
    sides = [(Path(DATA) / name).read_text(encoding="utf-8").split("\n")[:-1] for name in (source, target)]
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = Metaspace()
    trainer = BpeTrainer(vocab_size=10_000, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(sides[0] + sides[1], trainer)
    lengths = [np.array([len(e.ids) + 1 for e in tokenizer.encode_batch_fast(side)]) for side in sides]  # + EOS token
    for num_ranks in (1, 8):
        sampler = TokenBudgetSampler(*lengths, 4096 * num_ranks, num_ranks=num_ranks)
        plan = sampler.plan(1)
        cost = np.array([[padded(batch, side) for side in lengths] for batch in plan])
        assert cost.max() < 4096 + max(side.max() for side in lengths)
        assert 1 - sum(side.sum() for side in lengths) / cost.sum() <= 0.08
        by_step = cost.sum(axis=1).reshape(-1, num_ranks)
        assert (by_step.max(axis=1) / by_step.mean(axis=1)).mean() <= 1.05
