"""The page as a file: self-contained, with sentences and weights as data. test_browser.py tests its behaviour."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_vanilla_transformer import attention_maps
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.visualization.maps import AttentionMaps
from hf_vanilla_transformer.visualization.page import attention_page, save_page

HOSTILE = "</script><script>document.title='run'</script> {{title}} & <img src=x onerror=alert(1)> \ud800"


@pytest.fixture(scope="module")
def maps(model: Any, tokenizer: Any) -> AttentionMaps:
    return attention_maps(model, tokenizer, "two hundred and five won", "이백오 원")


class Elements(HTMLParser):
    """Collects the elements of a page with their attributes, and the text in them by their id or name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = self.elements[-1][1].get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, text: str) -> None:
        self.texts[self.inside] = self.texts.get(self.inside, "") + text


def test_the_page_needs_nothing_else(maps: AttentionMaps) -> None:
    page = attention_page(maps)
    elements = Elements(page).elements
    addresses = [attributes[name] for _, attributes in elements for name in ("src", "href") if name in attributes]
    assert addresses == ["data:,"]
    assert not re.search(r"https?:|//\w|@import|url\(|fetch\(|XMLHttpRequest|\{\{", page)


def test_the_policy_lets_only_the_pages_own_script_and_style_in(maps: AttentionMaps) -> None:
    found = Elements(attention_page(maps))
    policy = next(a["content"] for tag, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    for element in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(found.texts[element].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy


def test_weights_are_in_the_page_to_a_half_step(maps: AttentionMaps) -> None:
    data = json.loads(Elements(attention_page(maps)).texts["data"])
    for kind in ("encoder", "decoder", "cross"):
        weights = maps.weights(kind)
        stored = np.frombuffer(base64.b64decode(data["kinds"][kind]["weights"]), np.uint8).reshape(weights.shape)
        np.testing.assert_allclose(stored / 255, weights, atol=0.5 / 255 + 1e-6)


def test_a_hostile_sentence_stays_data(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    hostile = attention_maps(model, tokenizer, HOSTILE, HOSTILE)
    path = save_page(hostile, tmp_path / "new" / "page.html", title=HOSTILE)
    found = Elements(path.read_text(encoding="utf-8"))
    assert [tag for tag, _ in found.elements].count("script") == 2 and "img" not in dict(found.elements)
    assert json.loads(found.texts["data"])["source"] == HOSTILE.replace("\ud800", "?")
    assert found.texts["title"] == HOSTILE.replace("\ud800", "?")


def test_what_is_shown_first_is_chosen_and_checked(maps: AttentionMaps) -> None:
    def first(**choice: Any) -> dict[str, Any]:
        return json.loads(Elements(attention_page(maps, **choice)).texts["data"])["first"]

    assert first() == {"kind": "cross", "layer": 1, "head": "mean"}
    assert first(kind="encoder", layer=0, head=2) == {"kind": "encoder", "layer": 0, "head": 2}
    with pytest.raises(ValueError, match="there is no head 3 in cross attention"):
        attention_page(maps, head=3)


# The command.


@pytest.fixture(scope="module")
def checkpoint(model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("choice", ["", "--layer 1", "--attention decoder --layer 1 --head 2", "--attention encoder"])
def test_visualize_writes_a_page_and_a_figure(checkpoint: Path, tmp_path: Path, capsys: Any, choice: str) -> None:
    page, figure = tmp_path / "page.html", tmp_path / "figure.svg"
    words = ["visualize", str(checkpoint), "--source", "two won", "--target", "이 원", *choice.split()]
    assert main([*words, "--output", str(page), "--figure", str(figure)]) == 0
    assert json.loads(Elements(page.read_text(encoding="utf-8")).texts["data"])["target"] == "이 원"
    assert "<svg" in figure.read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == f"visualize: page={page} figure={figure} target=이 원"


def test_visualize_replaces_a_page_and_a_figure_only_when_asked_and_nothing_else(
    checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    page, figure, thesis = tmp_path / "page.html", tmp_path / "figure.png", tmp_path / "thesis.html"
    thesis.write_text("<html>years of work</html>")
    words = ["visualize", str(checkpoint), "--source", "two won", "--target", "이 원"]
    outputs = ["--output", str(page), "--figure", str(figure)]
    assert main([*words, *outputs]) == 0
    assert main([*words, *outputs]) == 2 and "page.html already exists" in capsys.readouterr().err
    assert main([*words, *outputs, "--overwrite"]) == 0
    assert main([*words, "--output", str(thesis), "--overwrite"]) == 2
    assert "does not look like an attention page" in capsys.readouterr().err
    assert main([*words, "--output", str(page), "--figure", str(thesis), "--overwrite"]) == 2
    assert "thesis.html has no suffix of an image format" in capsys.readouterr().err
    assert thesis.read_text() == "<html>years of work</html>"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("--layer 9", "there is no layer 9 in cross attention; choose one of 0 to 1"),
        ("--layer 1 --head 8", "there is no head 8 in cross attention; choose one of 0 to 2"),
        ("--output {tmp}", "{tmp} is a directory; name a file"),
        ("--output {tmp}/file/page.html", "{tmp}/file/page.html cannot be used: Not a directory"),
        ("--figure {tmp}/a.xyz", "{tmp}/a.xyz has no suffix of an image format"),
        ("--target " + "일" * 500, "more than max_tokens=200"),
    ],
    ids=["layer", "head", "folder", "below a file", "format", "long"],
)
def test_bad_input_ends_in_one_sentence(
    checkpoint: Path, tmp_path: Path, capsys: Any, choice: str, message: str
) -> None:
    (tmp_path / "file").touch()
    words = ["visualize", str(checkpoint), "--source", "two won", "--target", "이 원", "--output", f"{tmp_path}/p.html"]
    assert main([*words, *choice.format(tmp=tmp_path).split()]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vanilla-transformer visualize: error: ") and message.format(tmp=tmp_path) in error
