# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Language codes: what is none is rejected, and the right code is named."""

from pathlib import Path

import pytest

from hf_vanilla_transformer.languages import base_language, check_language, doubtful_language, language_name
from hf_vanilla_transformer.training.evaluation_request import EvaluationRequest, run_evaluation
from hf_vanilla_transformer.training.preflight import check_settings
from hf_vanilla_transformer.training.recipe import read_recipe


@pytest.mark.parametrize(
    ("name", "code", "english"),
    [
        ("ko", "ko", "Korean"),
        ("KO-kr", "ko", "Korean"),
        ("kor_Hang", "ko", "Korean"),
        ("ger", "de", "German"),  # the bibliographic code of ISO 639-2
        ("zh-Hans", "zh", "Chinese"),
        ("pt_BR", "pt", "Portuguese"),
        ("German", "de", "German"),
        ("cmd", "cmd", None),  # any three letters may be a code of ISO 639-3
        ("question", None, None),
        ("source", None, None),
        ("", None, None),
    ],
)
def test_a_tag_or_a_name_has_a_base_language(name: str, code: str | None, english: str | None) -> None:
    assert base_language(name) == code and language_name(name) == english


@pytest.mark.parametrize(
    ("name", "right"),
    [("jp", "Japanese is 'ja'"), ("cn", "Chinese is 'zh'"), ("gr", "Greek is 'el'"), ("cz", "Czech is 'cs'")]
    + [
        ("dk", "Danish is 'da'"),
        ("ua", "Ukrainian is 'uk'"),
        ("cn-Hans", "Chinese is 'zh'"),
        ("xx", "write e.g. 'ko'"),
    ],
)
def test_what_is_no_language_code_is_rejected_and_the_right_one_named(name: str, right: str) -> None:
    with pytest.raises(ValueError, match=f"target_lang: '{name}' is not a language code of ISO 639; {right}"):
        check_language(name, "target_lang")


@pytest.mark.parametrize("name", ["en", "kr", "kor_Hang", "question", "source", "act", "q1", "x", "문장"])
def test_codes_and_names_of_columns_are_accepted(name: str) -> None:
    check_language(name, "target_lang")


def test_a_code_that_is_rarely_meant_and_a_name_give_a_warning_with_the_usual_code() -> None:
    found = doubtful_language("kr", "target_lang")
    assert found == "target_lang: 'kr' is the language code of Kanuri; if you mean Korean, write 'ko'"
    assert "if you mean Swedish, write 'sv'" in (doubtful_language("se", "source_lang") or "")
    assert doubtful_language("Korean", "target_lang") == "target_lang: 'Korean' is not a language code; write 'ko'"
    assert not any(doubtful_language(name, "x") for name in ("ko", "uk", "br", "sw", "question", "cmd", "zh_CN"))


def test_a_recipe_with_a_wrong_language_code_is_rejected_before_any_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for side in ("en", "ko"):
        (tmp_path / f"a.{side}").write_text("a\n")
    words = ["--train_source", f"{tmp_path}/a.en", "--train_target", f"{tmp_path}/a.ko", "--eval_strategy", "no"]
    words += ["--output_dir", str(tmp_path / "run"), "--source_lang", "en", "--target_lang"]
    with pytest.raises(ValueError, match="target_lang: 'jp' is not a language code of ISO 639; Japanese is 'ja'"):
        read_recipe("tiny", [*words, "jp"])
    check_settings(read_recipe("tiny", [*words, "ko"]))
    assert "language code" not in caplog.text
    check_settings(read_recipe("tiny", [*words, "kr"]))
    assert "target_lang: 'kr' is the language code of Kanuri; if you mean Korean, write 'ko'" in caplog.text


@pytest.mark.parametrize(("code", "message"), [("xx", "'xx' is not a language code"), ("jp", "Japanese is 'ja'")])
def test_evaluate_rejects_a_wrong_language_code(code: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"target_lang: .*{message}"):
        run_evaluation(EvaluationRequest("none", source="a", reference="b", target_lang=code))
