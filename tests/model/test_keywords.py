"""`forward` rejects unknown keywords, and accepts all that transformers, Trainer and PEFT pass."""

import pytest
import torch
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from transformers.modeling_flash_attention_utils import FlashAttentionKwargs
from transformers.utils import TransformersKwargs

from hf_vanilla_transformer import (
    BeamSearchConfig,
    VanillaTransformerConfig,
    VanillaTransformerEncoderModel,
    VanillaTransformerForConditionalGeneration,
    train_tokenizer,
)
from hf_vanilla_transformer.model.beam_search_vanilla_transformer import paper_beam_search, score_targets
from hf_vanilla_transformer.model.loss_vanilla_transformer import IGNORE_INDEX

SOURCE = torch.tensor([[4, 9, 17, 5, 2], [6, 8, 2, 0, 0]])
TARGET = torch.tensor([[7, 8, 3, 2], [18, 10, 2, IGNORE_INDEX]])
SIZES = {"vocab_size": 23, "d_model": 16, "d_ff": 24, "num_heads": 2, "encoder_layers": 2, "decoder_layers": 2}


def build(**fields) -> VanillaTransformerForConditionalGeneration:
    torch.manual_seed(0)
    return VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**{**SIZES, "dropout": 0.0, **fields}))


# --------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("keyword", "near"),
    [
        ("label_smoothng", "label_smoothing"),
        ("attention_msk", "attention_mask"),
        ("decoder_input_id", "decoder_input_ids"),
        ("use_cach", "use_cache"),
        ("output_atentions", "output_attentions"),
    ],
)
def test_a_misspelled_keyword_is_refused_with_the_closest_one(keyword, near):
    with pytest.raises(ValueError, match=rf"forward\(\) has no argument '{keyword}' \(did you mean '{near}'\?\)"):
        build()(input_ids=SOURCE, labels=TARGET, **{keyword: torch.ones(1)})


def test_every_unknown_keyword_is_named():
    with pytest.raises(ValueError, match="'zzz', 'qqq'; leave it out, or remove that column from the batch"):
        build().model(input_ids=SOURCE, decoder_input_ids=SOURCE, zzz=1, qqq=2)


def test_the_encoder_model_refuses_unknown_keywords_too():
    with pytest.raises(ValueError, match="did you mean 'attention_mask'"):
        VanillaTransformerEncoderModel(VanillaTransformerConfig(**SIZES))(input_ids=SOURCE, atention_mask=SOURCE)


# --------------------------------------------------------------------------- accepted


def test_keywords_of_transformers_are_accepted_and_change_nothing():
    model = build().eval()
    expected = model(input_ids=SOURCE, labels=TARGET).logits
    known = {name: None for name in (*TransformersKwargs.__annotations__, *FlashAttentionKwargs.__annotations__)}
    given = {"return_dict": True, "shift_labels": TARGET, "output_attentions": False, "an_unknown_name": None}
    assert torch.equal(model(input_ids=SOURCE, labels=TARGET, **{**known, **given}).logits, expected)


def test_the_encoder_accepts_the_labels_that_seq2seq_trainer_passes():
    encoder = build().eval().get_encoder()
    states = encoder(input_ids=SOURCE, labels=TARGET).last_hidden_state
    assert torch.equal(states, encoder(input_ids=SOURCE).last_hidden_state)


def test_with_gradient_checkpointing_a_given_cache_is_left_out_and_gradients_stay():
    plain, saving = build().train(), build().train()
    saving.gradient_checkpointing_enable()
    for model in (plain, saving):
        model(input_ids=SOURCE, labels=TARGET, label_smoothing=0.1).loss.backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_the_keywords_compile_without_a_graph_break():
    model = build().eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        logits = compiled(input_ids=SOURCE, decoder_input_ids=SOURCE, output_attentions=False).logits
        torch.testing.assert_close(logits, model(input_ids=SOURCE, decoder_input_ids=SOURCE).logits)


@pytest.mark.parametrize("generate", [False, True])
def test_the_stock_trainer_trains_and_evaluates(tmp_path, generate):
    tokenizer: PreTrainedTokenizerFast = train_tokenizer(["one two three", "하나 둘 셋"], 300)
    model = build(vocab_size=len(tokenizer))
    rows = [
        {"input_ids": tokenizer(source)["input_ids"], "labels": tokenizer(text_target=target)["input_ids"]}
        for source, target in [("one", "하나"), ("two", "둘"), ("three two", "셋 둘")] * 2
    ]
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path), max_steps=2, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
        predict_with_generate=generate, generation_max_length=6, per_device_train_batch_size=3,
    )  # fmt: skip
    trainer = Seq2SeqTrainer(
        model, arguments, DataCollatorForSeq2Seq(tokenizer, model), rows, rows, processing_class=tokenizer
    )
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0


ADAPTERS = ["lora", "lora_embeddings", "trainable_tokens", "prompt", "p_tuning", "prefix"]


def adapted(kind: str):
    peft = pytest.importorskip("peft", reason="peft is not installed; it comes with the extra `test` or `peft`")
    task = {"task_type": "SEQ_2_SEQ_LM"}
    config = {
        "lora": lambda: peft.LoraConfig(**task, r=2, target_modules=["q_proj", "v_proj"]),
        "lora_embeddings": lambda: peft.LoraConfig(**task, r=2, target_modules=["embed_tokens", "q_proj"]),
        "trainable_tokens": lambda: peft.LoraConfig(
            **task, r=2, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [4, 5]}
        ),
        "prompt": lambda: peft.PromptTuningConfig(**task, num_virtual_tokens=3),
        "p_tuning": lambda: peft.PromptEncoderConfig(**task, num_virtual_tokens=3),
        "prefix": lambda: peft.PrefixTuningConfig(**task, num_virtual_tokens=3),
    }[kind]()
    return peft.get_peft_model(build(), config)


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.filterwarnings("ignore")  # peft's own deprecations
def test_adapters_train_and_generate(kind):
    model = adapted(kind).train()
    mask = (SOURCE != 0).long()
    loss = model(input_ids=SOURCE, attention_mask=mask, labels=TARGET).loss
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert any(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients)
    with torch.no_grad():
        written = model.eval().generate(input_ids=SOURCE, attention_mask=mask, max_new_tokens=5)
    assert written.shape[0] == 2 and written.shape[1] > 1


@pytest.mark.parametrize("kind", ["prompt", "p_tuning", "prefix"])
@pytest.mark.filterwarnings("ignore")  # peft's own deprecations
def test_a_tuned_prompt_reaches_generation(kind):
    """If the prefix is ignored, the model generates as without an adapter."""
    model = adapted(kind).eval()
    mask = (SOURCE != 0).long()
    with torch.no_grad():
        model.base_model.lm_head.weight.mul_(4.0)
        logits = model(input_ids=SOURCE, attention_mask=mask, decoder_input_ids=torch.ones(2, 1, dtype=torch.long))
        bare = model.base_model(input_ids=SOURCE, attention_mask=mask, decoder_input_ids=torch.ones(2, 1).long())
        written = model.generate(input_ids=SOURCE, attention_mask=mask, max_new_tokens=4)
        again = model(input_ids=SOURCE, attention_mask=mask, decoder_input_ids=written[:, :-1]).logits
    assert not torch.allclose(logits.logits[:, -1], bare.logits[:, -1])
    lengths = (written[:, 1:] == 2).int().argmax(dim=1)  # index of the EOS token; 0 if there is none
    for row, length in zip(range(2), lengths.tolist(), strict=True):
        steps = length + 1 if length else written.shape[1] - 1
        expected = again[row, -(written.shape[1] - 1) :].argmax(dim=-1)
        assert written[row, 1 : 1 + steps].tolist() == expected[:steps].tolist()


@pytest.mark.parametrize("kind", ["prompt", "p_tuning", "prefix"])
@pytest.mark.filterwarnings("ignore")  # peft's own deprecations
def test_beam_search_and_scores_refuse_an_adapter_that_they_would_ignore(kind):
    model = adapted(kind).eval()
    with pytest.raises(ValueError, match="adds virtual tokens outside of the model's modules.*use generate"):
        paper_beam_search(model, SOURCE)
    with pytest.raises(ValueError, match="use generate"):
        score_targets(model, SOURCE, None, TARGET)


@pytest.mark.parametrize("kind", ["lora_embeddings", "trainable_tokens"])
def test_beam_search_sees_adapted_embeddings(kind):
    model = adapted(kind).eval()
    mask = (SOURCE != 0).long()
    plain = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
        scores = score_targets(model, SOURCE, mask, TARGET)
        assert not torch.allclose(scores.log_probs, score_targets(plain, SOURCE, mask, TARGET).log_probs)
    found = paper_beam_search(model, SOURCE, mask, BeamSearchConfig(num_beams=1))
    again = score_targets(model, SOURCE, mask, found.sequences[:, 1:])
    torch.testing.assert_close(found.sequences_scores, again.scores)


# --------------------------------------------------------------------------- the loss's edges


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("items", [0, torch.tensor(0), None], ids=str)
def test_labels_that_are_all_ignored_give_a_loss_and_gradients_of_zero(training, items):
    model = build().train(training)
    labels = torch.full_like(TARGET, IGNORE_INDEX)
    output = model(input_ids=SOURCE, labels=labels, num_items_in_batch=items, label_smoothing=0.1)
    assert (output.loss.item(), output.nll.item()) == (0.0, 0.0)
    output.loss.backward()
    assert all(float(p.grad.abs().sum()) == 0.0 for p in model.parameters() if p.grad is not None)


def test_logits_are_returned_while_training_if_asked_for():
    model = build().train()
    without = model(input_ids=SOURCE, labels=TARGET, label_smoothing=0.1)
    output = model(input_ids=SOURCE, labels=TARGET, label_smoothing=0.1, return_logits=True)
    assert without.logits is None and output.logits.shape == (2, 4, 23)
    torch.testing.assert_close(output.loss, without.loss)
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), TARGET.flatten(), label_smoothing=0.1)
    torch.testing.assert_close(output.loss, expected)


def test_padding_is_hidden_from_the_decoder_beside_encoder_outputs():
    model = build().eval()
    mask = (SOURCE != 0).long()
    encoder_outputs = model.get_encoder()(input_ids=SOURCE, attention_mask=mask)
    inputs = {"encoder_outputs": encoder_outputs, "decoder_input_ids": TARGET.clamp(min=0)}
    expected = model(**inputs, attention_mask=mask).logits
    assert torch.equal(model(**inputs, input_ids=SOURCE).logits, expected)
    assert not torch.allclose(model(**inputs).logits[1], expected[1])  # without ids padding cannot be recognized
