"""A SentencePiece model becomes a fast tokenizer with the same pieces, ids and splits, without the library itself."""

from pathlib import Path

import pytest

from hf_vanilla_transformer import embedded_corpus
from hf_vanilla_transformer.checkpoints.sentencepiece_model import read_sentencepiece

sentencepiece = pytest.importorskip("sentencepiece")

OPTIONS = {
    "plain": {"vocab_size": 300},
    "with padding": {"vocab_size": 300, "pad_id": 3},
    "other ids": {"vocab_size": 300, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "without EOS": {"vocab_size": 300, "bos_id": -1, "eos_id": -1},
    "byte fallback": {"vocab_size": 560, "byte_fallback": True},
    "user-defined": {"vocab_size": 300, "user_defined_symbols": ["<2ko>"], "control_symbols": ["<ctl>"]},
    "no prefix": {"vocab_size": 300, "add_dummy_prefix": False},
    "not normalized": {"vocab_size": 300, "normalization_rule_name": "identity"},
}
HARD = ["Hello wörld 日本 x", " two  spaces ", "ﬁ １２", "a\tb", "", "퀡 e\u0301", "three▁x"]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return [text for pair in embedded_corpus("train", 300)["translation"] for text in pair.values()]


def trained(folder: Path, lines: list[str], kind: str, **options: object) -> Path:
    (folder / "text").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "m"),
        model_type=kind,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return folder / "m.model"


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_ids_are_those_of_sentencepiece(kind: str, options: dict, lines: list[str], tmp_path: Path) -> None:
    file = trained(tmp_path, lines, kind, **options)
    expected = sentencepiece.SentencePieceProcessor(model_file=str(file))
    tokenizer = read_sentencepiece(file)
    assert len(tokenizer) == expected.get_piece_size()
    for text in [*lines[:200], *HARD]:
        assert tokenizer(text)["input_ids"] == expected.encode(text), text
        if expected.unk_id() not in expected.encode(text):
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == expected.decode(expected.encode(text))
    for name in ("pad", "bos", "eos", "unk"):
        index = getattr(expected, f"{name}_id")()
        assert getattr(tokenizer, f"{name}_token_id") == (None if index < 0 else index)


def test_user_defined_pieces_are_shown_and_control_pieces_skipped(lines: list[str], tmp_path: Path) -> None:
    tokenizer = read_sentencepiece(trained(tmp_path, lines, "bpe", **OPTIONS["user-defined"]))
    ids = tokenizer("<2ko> three <ctl> hundred")["input_ids"]
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert "<2ko>" in decoded and "<ctl>" not in decoded
    assert {"<2ko>", "<ctl>"} <= set(tokenizer.convert_ids_to_tokens(ids))


@pytest.mark.parametrize("kind", ["word", "char"])
def test_other_types_are_refused(kind: str, lines: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"is a SentencePiece model of type {kind}; train it with"):
        read_sentencepiece(trained(tmp_path, lines, kind, vocab_size=100))


def test_a_damaged_file_is_named_in_one_line(lines: list[str], tmp_path: Path) -> None:
    whole = trained(tmp_path, lines, "bpe", vocab_size=200).read_bytes()
    for content in (
        b"",
        b"\n",
        b"hello",
        whole[:100],
        whole[:-7],
        b"\n\x99",
        b"\n\x02\x08\x01",
        b"\x0a\x03\x0a\x01\xff",
    ):
        (tmp_path / "bad.model").write_bytes(content)
        with pytest.raises(ValueError, match="bad.model is not a SentencePiece model") as caught:
            read_sentencepiece(tmp_path / "bad.model")
        assert "\n" not in str(caught.value)
