"""Any tokenizer can be used for training: it gets a padding token and appends EOS, and still does when reloaded."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_vanilla_transformer import embedded_corpus, train_tokenizer
from hf_vanilla_transformer.checkpoints.loading import load_any_tokenizers, load_tokenizers

sentencepiece = pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build one small tokenizer of each kind."""
    folder = tmp_path_factory.mktemp("made")
    lines = [text for pair in embedded_corpus("train", 300)["translation"] for text in pair.values()]
    (folder / "text").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, options in {"pad": {"pad_id": 3}, "plain": {}, "none": {"bos_id": -1, "eos_id": -1}}.items():
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "text"), model_prefix=str(folder / name), vocab_size=300, minloglevel=2, **options
        )

    def directory(name: str, config: dict | None = None, **copies: str) -> Path:
        (folder / name).mkdir()
        for target, source in copies.items():
            shutil.copy(folder / source, folder / name / target.replace("_dot_", "."))
        if config is not None:
            file = "config.json" if "model_type" in config else "tokenizer_config.json"
            (folder / name / file).write_text(json.dumps(config))
        return folder / name

    directory("t5", {"model_type": "t5"}, spiece_dot_model="pad.model")
    directory("mbart", {"tokenizer_class": "MBartTokenizer"}, sentencepiece_dot_bpe_dot_model="plain.model")
    directory("spiece", None, spiece_dot_model="none.model")
    directory("bpe", None, sentencepiece_dot_bpe_dot_model="none.model")
    directory("spm", None, source_dot_spm="none.model")
    directory("two-spm", None, source_dot_spm="pad.model", target_dot_spm="pad.model")

    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "plain.model"))
    pieces = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    names = ["</s>", "<unk>", *(piece for piece in pieces if piece not in ("<s>", "</s>", "<unk>")), "<pad>"]
    for name, config in (("marian", {"model_type": "marian"}), ("bare-marian", None)):
        place = directory(name, config, source_dot_spm="plain.model", target_dot_spm="plain.model")
        (place / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(names)}))

    gpt2 = Tokenizer(models.BPE())
    gpt2.pre_tokenizer, gpt2.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    gpt2.train_from_iterator(lines, trainer)
    gpt2.model.save(str(directory("gpt2", {"model_type": "gpt2"})))
    gpt2.save(str(directory("json") / "tokenizer.json"))
    gpt2.save(str(folder / "my.json"))

    bert = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    bert.train_from_iterator(
        lines, trainers.WordPieceTrainer(vocab_size=400, special_tokens=names, show_progress=False)
    )
    bert.model.save(str(directory("bert", {"model_type": "bert"})))
    return folder


KINDS = (
    "pad.model plain.model none.model my.json json/tokenizer.json t5 mbart spiece bpe spm two-spm marian bare-marian "
    "gpt2 json bert"
).split()


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_of_any_kind_pads_and_appends_eos_after_reloading_too(
    made: Path, kind: str, tmp_path: Path
) -> None:
    tokenizers = load_any_tokenizers(made / kind)
    assert tokenizers.separate == (kind == "two-spm")
    for tokenizer in (tokenizers.source, tokenizers.target):
        assert tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id
        assert "token_type_ids" not in tokenizer("a")
    texts = ["three hundred", "two"]
    tokenizers.save_pretrained(tmp_path)
    reloaded = load_tokenizers(tmp_path)
    for encode in ("encode_sources", "encode_targets"):
        rows = getattr(tokenizers, encode)(texts)
        assert getattr(reloaded, encode)(texts) == rows
        for row in rows:
            assert row[1:].count(tokenizers.eos_token_id) == 1
    # transformers alone: the post-processor was saved with the tokenizer
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert plain(texts)["input_ids"] == tokenizers.encode_sources(texts)
    assert "token_type_ids" not in plain("a")
    assert [plain.decode(row, skip_special_tokens=True) for row in plain(texts)["input_ids"]] == texts


def test_a_template_that_begins_with_bos_keeps_it(tmp_path: Path) -> None:
    from tokenizers import processors

    tokenizer = train_tokenizer(["one two three"] * 20, 280)
    begin = [("<s>", 1)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=begin)
    tokenizer.save_pretrained(tmp_path / "t")
    tokenizers = load_any_tokenizers(tmp_path / "t")
    ids = tokenizers.source("one")["input_ids"]
    assert (ids[0], ids[-1]) == (1, 2) and tokenizers.source("a", "b")["input_ids"].count(2) == 2
    assert tokenizers.encode_targets(["one"])[0] == ids[1:]


def test_eos_used_as_padding_is_replaced_by_a_token_of_its_own(made: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made / "gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    found = load_any_tokenizers(tmp_path).source
    assert (found.pad_token, found.pad_token_id) == ("<pad>", len(tokenizer))


def test_a_python_tokenizer_without_eos_is_refused(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import MarianTokenizer

    monkeypatch.setattr(MarianTokenizer, "build_inputs_with_special_tokens", lambda self, ids, other=None: ids)
    with pytest.raises(ValueError, match="does not append its EOS token '</s>'.*give its tokenizer.json") as caught:
        load_any_tokenizers(made / "marian")
    assert "\n" not in str(caught.value)


def test_what_is_no_tokenizer_is_named_in_one_line(made: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.txt").write_text("one\n")
    (tmp_path / "no.json").write_text('{"a": 1}')
    (tmp_path / "two").mkdir()
    for name in ("a.model", "b.model"):
        shutil.copy(made / "pad.model", tmp_path / "two" / name)
    expected = {
        "empty": "contains no tokenizer; give a directory with tokenizer.json",
        "words.txt": "is neither a SentencePiece model nor a tokenizers JSON file",
        "no.json": "is not a tokenizers JSON file",
        "two": "contains several SentencePiece models; give one file, e.g. .*a.model",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=message) as caught:
            load_any_tokenizers(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="there is no tokenizer file .*gone.model"):
        load_any_tokenizers(tmp_path / "gone.model")


def test_a_json_file_needs_no_names_beside_it(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"one": 0, "[UNK]": 1, "<eos>": 2, "[PAD]": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "words.json"))
    tokenizer = load_any_tokenizers(tmp_path / "words.json").source
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert tokenizer("one two")["input_ids"] == [0, 1, 2] and tokenizer.pad_token_id == 3
