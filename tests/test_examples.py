"""The training examples run from first line to last, on data made here; each keeps the form of a letter."""

import ast
import csv
import importlib.util
import itertools
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    preset,
    train_tokenizer,
)

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
LETTERS = [
    EXAMPLES / f"{name}.py"
    for name in (
        "accelerate_loop",
        "back_translation",
        "english_korean",
        "finetune_with_stock_trainer",
        "korean_qa",
        "multilingual",
        "scan",
        "train_from_two_files",
    )
]
MOST_LINES = 120
SIZES = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
SMALLEST = [
    *("--config_overrides", json.dumps(SIZES), "--max_steps", "2", "--warmup_steps", "2", "--cooldown_steps", "0"),
    *("--use_cpu", "true", "--precision", "fp32", "--disable_tqdm", "true", "--report_to", "none"),
]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the directory of the examples to the search path of modules, as Python does for a script in it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_pairs(folder: Path, split: str, name: str, size: int) -> None:
    pairs = embedded_corpus(split, size)["translation"]
    for language in ("en", "ko"):
        (folder / f"{name}.{language}").write_text("".join(p[language] + "\n" for p in pairs), encoding="utf-8")


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def loads(folder: Path) -> bool:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    return len(AutoTokenizer.from_pretrained(folder)) == model.config.vocab_size


def test_train_from_two_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example("train_from_two_files")
    monkeypatch.setattr(module, "HELD_OUT", 5)
    monkeypatch.setattr(module, "VOCABULARY", 350)
    monkeypatch.setattr(module, "preset", lambda name, **fields: preset(name, **fields, **SIZES))
    write_pairs(tmp_path, "train", "my", 60)
    module.main([str(tmp_path / "my.en"), str(tmp_path / "my.ko"), str(tmp_path / "out"), "--updates", "3"])
    assert re.fullmatch(r"train_from_two_files: bleu=[\d.]+ chrf=[\d.]+ model=.*final", last_line(capsys))
    assert loads(tmp_path / "out" / "final")
    averaged = json.loads((tmp_path / "out" / "final" / "averaging.json").read_text(encoding="utf-8"))
    assert [member["step"] for member in averaged["checkpoints"]] == [1, 2, 3]


def test_finetune_with_stock_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path, "train", "my", 120)
    texts = [line for side in ("en", "ko") for line in (tmp_path / f"my.{side}").read_text("utf-8").splitlines()]
    tokenizer = train_tokenizer(texts, 350)
    model = VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=350, **SIZES))
    model.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    words = [str(tmp_path / name) for name in ("start", "my.en", "my.ko", "out")]
    example("finetune_with_stock_trainer").main([*words, "--updates", "4"])
    line = last_line(capsys)
    found = re.fullmatch(r"finetune_with_stock_trainer: loss before=([\d.]+) after=([\d.]+) model=.*", line)
    assert found and float(found[2]) < float(found[1])
    assert loads(tmp_path / "out")


def test_accelerate_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("accelerate_loop")
    monkeypatch.setattr(module, "SIZES", SIZES)
    monkeypatch.setattr(module, "VOCABULARY", 350)
    monkeypatch.setattr(module, "TOKENS_PER_UPDATE", 512)
    module.main([str(tmp_path / "out"), "--updates", "5", "--pairs", "60"])  # into the second epoch
    assert re.fullmatch(r"accelerate_loop: exact=[\d.]+ of 200 model=.*", last_line(capsys))
    assert loads(tmp_path / "out")


def test_accelerate_loop_s_learning_rate_is_equation_3_times_the_factor() -> None:
    module = example("accelerate_loop")
    peak = module.FACTOR / (256 * module.WARMUP) ** 0.5
    assert module.learning_rate(module.WARMUP, 256) == pytest.approx(peak)
    assert module.learning_rate(1, 256) == pytest.approx(peak / module.WARMUP)
    assert module.learning_rate(4 * module.WARMUP, 256) == pytest.approx(peak / 2)


def test_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verbs = ("walk", "look", "run", "jump")
    rows = [(f"{a} and {b}", f"I_{a.upper()} I_{b.upper()}") for a, b in itertools.product(verbs, repeat=2)]
    for split, part in (("train", rows[:12]), ("test", rows[12:])):
        for side, suffix in enumerate(("cmd", "act")):
            (tmp_path / f"{split}.{suffix}").write_text("".join(row[side] + "\n" for row in part))
    example("scan").main([str(tmp_path), "--output", str(tmp_path / "out"), *SMALLEST])
    assert re.fullmatch(r"scan: exact=[\d.]+ of 4 model=.*", last_line(capsys))
    assert loads(tmp_path / "out")


def test_english_korean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, name, size in (("train", "train", 40), ("validation", "dev", 4), ("test", "test", 4)):
        write_pairs(tmp_path, split, name, size)
        (tmp_path / f"{name}.source").write_text("talpco\nmanual\n" * (size // 2))
    words = ["--vocab_size", "350", "--eval_steps", "1", "--save_steps", "1", "--num_beams", "1"]
    example("english_korean").main([str(tmp_path), "--output", str(tmp_path / "out"), *SMALLEST, *words])
    line = last_line(capsys)
    assert re.fullmatch(r"english_korean: dev bleu=\S+ chrf=\S+ test bleu=\S+ chrf=\S+ model=.*", line)
    record = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    for split in ("validation", "test"):
        groups = record["scores"][split]["by_group"]
        assert {origin: found["sentences"] for origin, found in groups.items()} == {"manual": 2, "talpco": 2}
        assert groups["talpco"]["license"] == "CC BY 4.0" and "license" not in groups["manual"]
    assert loads(tmp_path / "out")


def test_english_korean_misses_a_file_before_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, name, size in (("train", "train", 40), ("validation", "dev", 4), ("test", "test", 4)):
        write_pairs(tmp_path, split, name, size)
    (tmp_path / "dev.source").write_text("talk\n" * 4)
    with pytest.raises(SystemExit):
        example("english_korean").main([str(tmp_path), "--output", str(tmp_path / "out"), *SMALLEST])
    assert f"{tmp_path} has no test.source;" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "test.source").write_text("talk\n" * 3)
    with pytest.raises(SystemExit):
        example("english_korean").main([str(tmp_path), "--output", str(tmp_path / "out"), *SMALLEST])
    assert "test.source has 3 lines, but test.ko has 4; give each line its origin" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_korean_qa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = embedded_corpus("train", 120)["translation"]
    with (tmp_path / "chat.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("Q", "A", "label"), *((pair["ko"], f"네, {pair['ko']}", 0) for pair in pairs)])
    words = ["--vocab_size", "350", "--eval_steps", "1", "--save_steps", "1", "--num_beams", "1"]
    module = example("korean_qa")
    module.main([str(tmp_path / "chat.csv"), "--output", str(tmp_path / "out"), *SMALLEST, *words])
    assert re.fullmatch(r"korean_qa: bleu=\S+ chrf=\S+ model=.*", last_line(capsys))
    rows = {}
    for split in ("train", "validation", "test"):
        with (tmp_path / "out-text" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows[split] = [row["question"] for row in csv.DictReader(file)]
    assert sum(map(len, rows.values())) == 120
    assert not set(rows["train"]) & {*rows["validation"], *rows["test"]}
    assert loads(tmp_path / "out")


def test_back_translation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, name, size in (("train", "train", 40), ("test", "test", 4), ("test", "talk", 3)):
        write_pairs(tmp_path, split, name, size)
    (tmp_path / "test.source").write_text("talk\nmanual\n" * 2)
    with (tmp_path / "chat.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("Q", "A", "label"), ("삼백만", "오", 0), ("오", " 칠\n팔 ", 1), ("", "오", 2)])
    files = [str(tmp_path), str(tmp_path / "chat.csv"), "--also", str(tmp_path / "talk")]
    words = [*files, "--output", str(tmp_path / "out"), *SMALLEST, "--vocab_size", "350", "--average_last", "0"]
    module = example("back_translation")
    module.main(words)
    pattern = r"back_translation: test bleu=[\d.]+ without bleu=[\d.]+ model=.*augmented"
    assert re.fullmatch(pattern, last_line(capsys))
    assert (tmp_path / "out" / "synthetic.ko").read_text(encoding="utf-8") == "삼백만\n오\n칠 팔\n"
    assert (tmp_path / "out" / "synthetic.en").read_text(encoding="utf-8").count("\n") == 3
    record = json.loads((tmp_path / "out" / "back_translation.json").read_text(encoding="utf-8"))
    groups = record["scores"]["augmented"]["test"]
    assert {origin: found["sentences"] for origin, found in groups.items()} == {"all": 4, "manual": 2, "talk": 2}
    assert record["scores"]["baseline"]["talk"]["all"]["sentences"] == 3
    assert record["runs"]["augmented"]["recipe"]["settings"]["train_source_tags"] == ["", "<bt>"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "augmented")
    assert tokenizer("<bt> five")["input_ids"][0] == tokenizer.convert_tokens_to_ids("<bt>") != tokenizer.unk_token_id
    assert loads(tmp_path / "out" / "augmented")

    # A second call trains nothing.
    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("model.safetensors")}
    module.main(words)
    assert re.fullmatch(pattern, last_line(capsys))
    assert weights == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("model.safetensors")}


@pytest.mark.parametrize(
    ("monolingual", "message"),
    [
        (None, "there is no .*mono.csv; --help lists the files"),
        ("question,answer\na,b\n", "mono.csv has no text; a CSV file needs the columns Q and A"),
    ],
)
def test_back_translation_rejects_bad_text_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monolingual: str | None, message: str
) -> None:
    for split, name in (("train", "train"), ("test", "test")):
        write_pairs(tmp_path, split, name, 4)
    if monolingual is not None:
        (tmp_path / "mono.csv").write_text(monolingual)
    words = [str(tmp_path), str(tmp_path / "mono.csv"), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stopped:
        example("back_translation").main(words)
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_multilingual(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, name, size in (("train", "my", 40), ("test", "held", 4)):
        write_pairs(tmp_path, split, name, size)
    words = [str(tmp_path / "my"), str(tmp_path / "held"), "--languages", "en", "ko", "--tokenize", "char"]
    words += ["--updates", "2", "--output", str(tmp_path / "out"), "--vocab_size", "350", "--average_last", "0"]
    example("multilingual").main([*words, *(SMALLEST[:2] + SMALLEST[8:])])  # without max_steps and its schedule
    pattern = r"multilingual: en-ko bleu=\S+ single bleu=\S+ ko-en bleu=\S+ single bleu=\S+ model=.*joint"
    assert re.fullmatch(pattern, last_line(capsys))
    record = json.loads((tmp_path / "out" / "multilingual.json").read_text(encoding="utf-8"))
    assert {name: run["training"]["updates"] for name, run in record["runs"].items()} == {
        "joint": 4, "en-ko": 2, "ko-en": 2
    }  # fmt: skip
    assert len({run["model"]["parameters"] for run in record["runs"].values()}) == 1
    assert record["runs"]["joint"]["data"]["train"]["pairs"] == 80
    assert {kind: found["sentences"] for kind, found in record["scores"]["ko-en"].items()} == {"single": 4, "joint": 4}
    assert loads(tmp_path / "out" / "joint")


def test_multilingual_misses_a_file_before_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path, "train", "my", 4)
    with pytest.raises(SystemExit) as stopped:
        example("multilingual").main([str(tmp_path / "my"), str(tmp_path / "held"), "--output", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "my.de" in (message := capsys.readouterr().err) and "held.en" in message
    assert not (tmp_path / "out").exists()


def test_chosen_settings_are_measured_on_other_pairs_and_become_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path, "train", "my", 90)
    # A pair that is in the text twice is not in the test text, even if one of the two is not trained on.
    for language in ("en", "ko"):
        lines = (tmp_path / f"my.{language}").read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / f"my.{language}").write_text("".join([*lines, lines[0]]), encoding="utf-8")
    module = example("chosen_settings")
    folders = ["--runs", str(tmp_path / "runs"), "--records", str(tmp_path / "records")]
    few = ["--vocab_size", "350", "--num_beams", "1", "--config_overrides", json.dumps(SIZES), "--max_steps", "2"]
    words = ["--pairs", "60", "--spread", "--name", "numbers", "--text", "numbers en→ko"]
    module.main([str(tmp_path / "my.en"), str(tmp_path / "my.ko"), *words, *folders, *few, "--report_to", "none"])
    assert re.fullmatch(r"chosen_settings: bleu=\S+ chrf=\S+ copied=\S+ minutes=\S+ model=.*numbers", last_line(capsys))
    text = tmp_path / "runs" / "numbers-text"
    trained, test = ({*(text / f"{split}.en").read_text().splitlines()} for split in ("train", "test"))
    assert trained and test and not trained & test
    record = json.loads((tmp_path / "records" / "numbers.json").read_text(encoding="utf-8"))
    assert record["pairs"] == 60 and record["training"]["updates"] == 2 and str(tmp_path) not in json.dumps(record)

    again = ["--finished", str(tmp_path / "runs" / "numbers"), "--name", "again"]
    module.main([str(tmp_path / "my.en"), str(tmp_path / "my.ko"), *words, *folders, *again])
    finished = json.loads((tmp_path / "records" / "again.json").read_text(encoding="utf-8"))
    assert finished["scores"]["validation"] == record["scores"]["validation"]
    assert finished["scores"]["test"]["chrf"] == pytest.approx(record["scores"]["test"]["chrf"], abs=0.5)
    (tmp_path / "records" / "again.json").unlink()

    page = tmp_path / "page.md"
    page.write_text(f"before\n{module.START}\nold\n{module.END}\nafter\n", encoding="utf-8")
    module.main(["--render", str(page), *folders])
    rows = page.read_text(encoding="utf-8").splitlines()
    assert rows[0] == "before" and rows[-1] == "after" and "old" not in rows
    assert rows[4].startswith("| numbers en→ko | 60 | 2 | ") and len({row.count("|") for row in rows[2:5]}) == 1


def test_the_table_of_chosen_settings_matches_the_records() -> None:
    page = (EXAMPLES.parent / "docs" / "training.md").read_text(encoding="utf-8")
    assert example("chosen_settings").render(page) == page, "run examples/chosen_settings.py --render docs/training.md"


@pytest.fixture
def small_checkpoint(tmp_path: Path) -> Path:
    rows = embedded_corpus("train", 200)["translation"]
    tokenizer = train_tokenizer((text for row in rows for text in row.values()), 350)
    model = VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **SIZES))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("arguments", [["--embedded"], ["--gold", "GOLD", "--held-out", "my.en", "my.ko"]])
def test_alignment_error_measures_heads_and_writes_a_record(
    arguments: list[str],
    tmp_path: Path,
    small_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, "validation", "my", 40)
    module = example("alignment_error")
    monkeypatch.setattr(module, "TEST_PAIRS", 40)
    words = [str(EXAMPLES / "gold_alignments.tsv") if word == "GOLD" else word for word in arguments]
    module.main([str(small_checkpoint), *words, "--name", "small", "--records", "records"])
    assert re.fullmatch(r"alignment_error: head=\S+ aer=0\.\d+ record=records/small.json", last_line(capsys))
    record = json.loads(Path("records/small.json").read_text(encoding="utf-8"))
    assert all(0 <= row["aer"] <= 1 for row in record["rows"]) and record["machine"]["cores"] >= 1
    page = Path("page.md")
    page.write_text(f"before\n{module.START}\nold\n{module.END}\nafter\n", encoding="utf-8")
    module.main(["--render", "page.md", "--records", "records"])
    rows = page.read_text(encoding="utf-8").splitlines()
    assert rows[0] == "before" and rows[-1] == "after" and len({row.count("|") for row in rows[2:-2]}) == 1


def test_the_gold_alignments_name_words_that_exist() -> None:
    rows = [line.split("\t") for line in (EXAMPLES / "gold_alignments.tsv").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 24
    for source, target, alignment in rows:
        links = re.findall(r"(\d+)[-p](\d+)", alignment)
        assert len(links) == len(alignment.split())
        assert all(int(i) < len(source.split()) and int(j) < len(target.split()) for i, j in links)


def test_minimum_bayes_risk_compares_systems_and_writes_a_record(
    tmp_path: Path, small_checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, "validation", "my", 8)
    module = example("minimum_bayes_risk")
    words = ["--source", "my.en", "--reference", "my.ko", "--lines", "2", "--tokenize", "char", "--name", "small"]
    module.main([str(small_checkpoint), *words, "--records", "records"])
    assert re.fullmatch(r"minimum_bayes_risk: bleu=\S+ chrf=\S+ record=records/small.json", last_line(capsys))
    record = json.loads(Path("records/small.json").read_text(encoding="utf-8"))
    assert [row["system"] for row in record["systems"]] == list(module.SYSTEMS) and record["sentences"] == 2
    page = Path("page.md")
    page.write_text(f"before\n{module.START}\nold\n{module.END}\nafter\n", encoding="utf-8")
    module.main(["--render", "page.md", "--records", "records"])
    assert len({row.count("|") for row in page.read_text(encoding="utf-8").splitlines()[2:-2]}) == 1


def test_decoding_options_measures_ensembles_and_restrictions(
    tmp_path: Path, small_checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    write_pairs(tmp_path, "validation", "my", 6)
    module = example("decoding_options")
    words = ["--source", "my.en", "--reference", "my.ko", "--tokenize", "char", "--name", "small"]
    monkeypatch.setattr(module, "LEAST_LETTERS", 1)
    module.main([str(small_checkpoint), str(small_checkpoint), *words, "--records", "records"])
    found = re.fullmatch(r"decoding_options: bleu=(\S+) ensemble=(\S+) record=records/small.json", last_line(capsys))
    assert found is not None and found[1] == found[2]  # an ensemble of a model with itself
    rows = {row["system"]: row for row in json.loads(Path("records/small.json").read_text(encoding="utf-8"))["systems"]}
    constrained = rows["beam 8, a missing word of the reference as constraint"]
    assert constrained["contained"] == constrained["constraints"] > 0
    page = Path("page.md")
    page.write_text(f"before\n{module.START}\nold\n{module.END}\nafter\n", encoding="utf-8")
    module.main(["--render", "page.md", "--records", "records"])
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[2].startswith("small, 6 sentences, one core of")
    assert sum(line.startswith("| ") for line in lines) == 1 + len(rows)
    with pytest.raises(SystemExit):
        module.main([str(small_checkpoint)])
    assert "--source" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "page"),
    [("alignment_error", "attention"), ("minimum_bayes_risk", "decoding"), ("decoding_options", "decoding")],
)
def test_the_tables_of_alignments_and_decoding_match_the_records(
    name: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (EXAMPLES.parent / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert example(name).render(text) == text, f"run examples/{name}.py --render docs/{page}.md"


@pytest.mark.parametrize("path", LETTERS, ids=lambda path: path.stem)
def test_an_example_is_a_short_letter(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= MOST_LINES
    letter = ast.get_docstring(ast.parse(source)) or ""
    for part in ("You learn", "Hardware", "inutes", "last line is", f"python examples/{path.name}"):
        assert part in letter, f"{path.name} doesn't say {part!r}"
    assert f'"{path.stem}: ' in letter, "the expected last line starts with the example's name"
