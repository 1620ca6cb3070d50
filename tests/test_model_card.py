"""The model card: complete, equal to the record, and readable by huggingface_hub's own parser."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_vanilla_transformer import preset
from hf_vanilla_transformer.model_card import SECTIONS, check_card, model_card, rename_card, write_card

ROOT = Path(__file__).resolve().parent.parent
SHA = "3b" * 32

# A card with a complete record; what varies between runs is a wildcard.
PATTERN = re.compile(
    r"""---\n(?P<yaml>.*?)\n---\n\n
    \#\ (?P<name>.+)\n\n
    Translates\ .+\ with\ [\d,]+\ parameters\ and\ a\ vocabulary\ of\ [\d,]+\ subwords,\ decoded\ by\ .+\n\n
    \#\#\ How\ to\ use\ it\n\n .*? pipeline\("translation",\ model="(?P=name)",\ trust_remote_code=True\) .*?
        from_pretrained\("(?P=name)"\) .*? tested\ with\ transformers\s5\.\d+\.\d+\ to\ 5\.\d+\.\d+\.\n\n
    \#\#\ Architecture\n\n Preset\ `[\w.-]+`\ \(.+\) .*? vocabulary .*?
    \#\#\ Data\n\n \|\ split\ \|\ data\ \|\ pairs\ \|.*?\|\ SHA-256\ \|\ licence\ \| .*? `[0-9a-f]{64}` .*?
    \#\#\ Training\n\n Recipe\ `[\w.-]+`,\ seed\ \d+,\ precision\ \w+\. .*? Tokens\ seen[^.]*:\ [\d,]+\.
        .*? Hardware:\ .+?\. .*? Training\ time:\ [\d,]+\ (h|min)\ .*?
        \|\ warmup\ updates\ \|\ [\d,]+\ \|\ 4,000\ \| .*?
    \#\#\ Scores\n\n \|\ split\ \|\ score\ \|\ value\ \|\ signature\ \| .*? nrefs:1.*?version: .*? Translated .*?
    \#\#\ Limits\n\n (-\ .+\n){4,}\n
    \#\#\ Where\ it\ comes\ from\n\n .*? Versions:\ .*?torch\ .*? Vaswani .*""",
    re.VERBOSE | re.DOTALL,
)

RECORD = {
    "recipe": {
        "name": "mine",
        "settings": {
            "train_source": "my.de", "source_lang": "de", "target_lang": "en", "preset": "tiny",
            "config_overrides": '{"d_ff": 96}', "warmup_steps": "2_000",
        },
    },
    "data": {
        "train": {"name": "my.de + my.en", "pairs": 28_123, "sha256": SHA, "problems": {"empty": 12}},
        "test": {"name": "test.de + test.en", "pairs": 500, "sha256": "4c" * 32, "problems": {}},
    },
    "model": {"preset": "tiny", "started_from": None, "parameters": 1_234_567, "vocabulary": 8_000},
    "training": {
        "updates": 20_000, "epochs": 12.5, "seconds": 7_322.0, "tokens": 123_456_789, "precision": "bf16", "seed": 1,
        "max_tokens_per_batch": 4_096, "warmup_steps": 2_000, "learning_rate": 0.002, "label_smoothing_factor": 0.1,
        "averaged": ["checkpoint-19000", "checkpoint-20000"], "decoding": {"num_beams": 4, "length_penalty": 0.6},
    },
    "scores": {
        "test": {
            "loss": 2.345, "perplexity": 10.43, "bleu": 31.4159, "chrf": 55.5, "sentences": 500,
            "bleu_signature": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
            "chrf_signature": "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0",
        }
    },
    "hardware": "2 cores of a processor",
    "versions": {"hf_vanilla_transformer": "0.1.0", "torch": "2.13.0"},
    "commit": "5c66+",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    preset("tiny", vocab_size=8_000, d_ff=96).save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def put(folder, record):
    (folder / "results.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def sections(text):
    return re.findall(r"^## (.+)$", text, re.MULTILINE)


def test_a_card_matches_its_pattern(folder):
    text = model_card(put(folder, RECORD))
    found = PATTERN.fullmatch(text)
    assert found is not None, text
    assert found["name"] == "mine"
    assert tuple(sections(text)) == SECTIONS


def test_the_header_is_what_the_hubs_parser_reads(folder):
    data = ModelCard(model_card(put(folder, RECORD), repo_id="someone/mine", license="mit")).data
    assert data.language == ["de", "en"] and data.license == "mit"
    assert data.library_name == "transformers" and data.pipeline_tag == "translation"
    assert "vanilla_transformer" in data.tags and data.metrics == ["bleu", "chrf"]
    assert data.model_name == "someone/mine"
    results = {result.metric_type: result for result in data.eval_results}
    assert set(results) == {"bleu", "chrf"}
    assert results["bleu"].metric_value == 31.4159
    assert results["bleu"].metric_config == RECORD["scores"]["test"]["bleu_signature"]
    assert results["bleu"].dataset_name == "test.de + test.en" and results["bleu"].dataset_split == "test"
    assert results["bleu"].task_type == "translation"


def test_the_card_contains_what_the_record_contains(folder):
    text = model_card(put(folder, RECORD), data_license="CC BY 4.0")
    for said in (
        "from German to English",
        "1,234,567 parameters",
        f"| train | my.de + my.en | 28,123 | empty 12 | `{SHA}` | CC BY 4.0 |",
        "| `d_ff` | 96 | 2,048 |",
        "| `dropout` | 0.3 | 0.1 |",
        "Tokens seen, source and target together: 123,456,789.",
        "Training time: 2 h 2 min.",  # 7,322 s = 2 · 3,600 + 2 · 60 + 2
        "| checkpoints averaged | 2 | 5 |",
        "| source tokens, and target tokens, per batch at most | 4,096 | 25,000 |",
        "| test | perplexity per token | 10.43 |  |",
        "Translated by beam search with 4 beams, α = 0.6.",
        "warmup_steps: 2_000",
        "It translates in one direction only: de to en.",
    ):
        assert said in text, said


def test_the_licence_of_the_data_comes_from_the_recipe_unless_it_is_given(folder):
    record = json.loads(json.dumps(RECORD))
    record["recipe"]["settings"]["data_license"] = "CC BY 4.0; not for the test set"
    text = model_card(put(folder, record))
    assert text.count(" | CC BY 4.0; not for the test set |") == 2  # train and test
    assert "| MIT |" in model_card(folder, data_license="MIT")


def test_languages_are_named_whatever_the_form_of_their_code(folder):
    record = json.loads(json.dumps(RECORD))
    record["recipe"]["settings"] |= {"source_lang": "pt_BR", "target_lang": "Korean"}
    text = model_card(put(folder, record))
    assert "Translates from Portuguese to Korean." in text and ModelCard(text).data.language == ["pt", "ko"]


def test_the_card_of_a_model_with_many_empty_translations_says_so(folder):
    record = json.loads(json.dumps(RECORD))
    record["scores"]["test"] |= {"empty": 0.04, "repeating": 0.03}
    assert "are empty" not in model_card(put(folder, record))
    record["scores"]["test"]["repeating"] = 0.3
    assert "- 34% of the translations of test are empty or repeat themselves: the model is not ready for use." in (
        model_card(put(folder, record))
    )


def test_what_no_record_contains_is_called_unknown(folder):
    text = model_card(folder)
    data = ModelCard(text).data
    assert data.license == "unknown" and data.eval_results is None and data.language is None
    assert tuple(sections(text)) == SECTIONS
    for said in (
        "Licence of the data: not stated",
        "This checkpoint has no record of its training.",
        "This checkpoint has no record of its scores.",
    ):
        assert said in text
    # 4 + 4 layers of d = 128, d_ff = 96: 4 · (4d² + 2·128·96 + 96 + 128 + 4d) + 4 · (8d² + … + 6d) + 8,000 d
    feed_forward = 2 * 128 * 96 + 96 + 128
    layers = 4 * (4 * 128**2 + feed_forward + 4 * 128) + 4 * (8 * 128**2 + feed_forward + 6 * 128)
    assert f"{layers + 8_000 * 128:,} parameters" in text


def test_the_base_model_is_named_as_the_papers(tmp_path):
    preset("base").save_pretrained(tmp_path)
    assert "It is the paper's base model." in model_card(tmp_path)


def test_hostile_records_break_neither_header_nor_tables(folder):
    record = json.loads(json.dumps(RECORD))
    record["recipe"]["settings"]["source_lang"] = "de\n---\nlicense: evil"
    record["data"]["test"]["name"] = 'a | b\n---\n"c": [d'
    text = model_card(put(folder, record))
    data = ModelCard(text).data
    assert data.license == "unknown" and data.language == ["en"]
    assert data.eval_results[0].dataset_name == 'a | b\n---\n"c": [d'
    assert '| test | a \\| b --- "c": [d | 500 |' in text


def test_text_of_a_record_is_never_run_as_a_template(folder):
    record = json.loads(json.dumps(RECORD))
    record["samples"] = [{"source": "{{ name }}", "reference": "{% for x in y %}", "translation": "{# a | b"}]
    record["data"]["train"]["name"] = "{{ 7 * 7 }}"
    text = model_card(put(folder, record))
    assert "| {{ name }} | {% for x in y %} | {# a \\| b |" in text and "| train | {{ 7 * 7 }} | 28,123 |" in text


@pytest.mark.parametrize(
    ("decoding", "said"),
    [
        ({"num_beams": 1, "length_penalty": 0.6}, "Translated by greedy search."),
        (
            {"num_beams": 5, "length_penalty": 1.0, "length_normalization": "gnmt"},
            "Translated by beam search with 5 beams, α = 1.0.",
        ),
        (
            {"num_beams": 5, "length_penalty": 1.0, "length_normalization": "power"},
            "Translated by beam search with 5 beams, α = 1.0, length normalization n^α.",
        ),
    ],
)
def test_the_card_names_the_search_that_made_the_translations(folder, decoding, said):
    record = {**RECORD, "training": {**RECORD["training"], "decoding": decoding}}
    assert f"\n\n{said}\n\n" in model_card(put(folder, record))


def test_streamed_data_has_no_hash(folder):
    record = {**RECORD, "data": {"train": {"name": "user/corpus [train]", "streamed": True}}}
    assert "| train | user/corpus [train] | streamed | streamed | streamed | not stated |" in model_card(
        put(folder, record)
    )


def test_a_card_takes_another_name_and_keeps_what_was_changed_by_hand(folder):
    text = model_card(put(folder, RECORD)).replace("## Limits", "A word of mine.\n\n## Limits")
    renamed = rename_card(text, "someone/else")
    assert 'model="someone/else"' in renamed and '"mine"' not in renamed and "A word of mine." in renamed
    assert ModelCard(renamed).data.model_name == "someone/else"
    assert rename_card("# theirs\n", "someone/else") == "# theirs\n"


def test_a_folder_called_translation_leaves_the_pipelines_name_alone(tmp_path):
    preset("tiny", vocab_size=8_000).save_pretrained(tmp_path / "translation")
    renamed = rename_card(model_card(tmp_path / "translation"), "someone/else")
    assert 'pipeline("translation", model="someone/else"' in renamed and 'model="translation"' not in renamed


def test_relative_folders_are_named_as_they_can_be_loaded(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    relative = Path(folder.parent.name) / "mine"
    assert f'model="{relative.as_posix()}"' in model_card(relative)


def test_writing_puts_it_beside_the_weights_or_where_asked(folder, tmp_path):
    assert write_card(folder) == folder / "README.md"
    other = write_card(folder, tmp_path / "model_card.md")
    assert other.read_bytes() == (folder / "README.md").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\nlicense: [\n---\n# x\n", r"^card.md:\d+: the header is not valid YAML"),
        ("---\na: b: c\n---\n# x\n", r"^card.md:2: the header is not valid YAML"),
        ("---\n- a\n---\n# x\n", "^card.md: the header is not that of a model card"),
        ("---\nmodel-index: 3\n---\n# x\n", "^card.md: the header is not that of a model card"),
    ],
)
def test_broken_headers_are_refused_with_their_line(text, message):
    with pytest.raises(ValueError, match=message):
        check_card(text, "card.md")


def test_damaged_records_are_refused(folder):
    (folder / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="results.json is not valid JSON"):
        model_card(folder)
    with pytest.raises(FileNotFoundError, match="there is no directory .*nowhere"):
        model_card(folder / "nowhere")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="has no config.json"):
        model_card(folder)


@pytest.mark.skipif(
    not (ROOT / "model_card.md").is_file(), reason="write it with `vanilla-transformer demo --card model_card.md`"
)
def test_the_card_at_the_root_is_that_of_the_demo():
    text = (ROOT / "model_card.md").read_text(encoding="utf-8")
    found = PATTERN.fullmatch(text)
    assert found is not None and found["name"] == "runs/demo"
    data = ModelCard(text).data
    assert data.language == ["en", "ko"] and data.license == "apache-2.0"
    exact = next(result for result in data.eval_results if result.metric_type == "exact_match")
    assert exact.metric_value > 0.9 and exact.dataset_name == "embedded corpus [test]"
    assert "Recipe `demo`" in text and "none needed: generated by rule" in text
