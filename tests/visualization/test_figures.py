"""Figures: what is drawn, files and their formats, fonts, and errors of one sentence."""

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from hf_vanilla_transformer import attention_maps
from hf_vanilla_transformer.data.embedded_corpus import draw_expressions
from hf_vanilla_transformer.visualization import figures
from hf_vanilla_transformer.visualization.figures import (
    alignment_figure,
    font_families,
    head_figure,
    layer_figure,
    save_figure,
)
from hf_vanilla_transformer.visualization.font_subset import FAMILY, FONT_PATH, characters, write_font_subset
from hf_vanilla_transformer.visualization.maps import AttentionMaps, Token

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def maps(model: Any, tokenizer: Any) -> AttentionMaps:
    return attention_maps(model, tokenizer, "two hundred and five won", "이백오 원")


def pictures_of(figure: Any) -> list[Any]:
    return [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]


def test_one_head_is_drawn_as_it_is(maps: AttentionMaps) -> None:
    figure = head_figure(maps, "decoder", 1, 2)
    np.testing.assert_array_equal(pictures_of(figure)[0], maps.decoder[1, 2])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [token.text for token in maps.target_tokens]
    # Hangul stands upright, from top to bottom; what is Latin lies.
    labels = axes.get_xticklabels()
    assert [label.get_text().replace("\n", "") for label in labels] == [t.text for t in maps.decoder_input_tokens]
    assert labels[0].get_text() == "<s>" and labels[0].get_rotation() == 90
    assert any(label.get_rotation() == 0 for label in labels)


def test_all_heads_of_a_layer_are_drawn(maps: AttentionMaps) -> None:
    drawn = pictures_of(layer_figure(maps, "cross", 0))
    assert len(drawn) == 3
    np.testing.assert_array_equal(np.stack(drawn), maps.cross[0])


def test_every_figure_names_its_attention_its_axes_and_its_scale(maps: AttentionMaps) -> None:
    figure = layer_figure(maps, "decoder", 1)
    assert figure.get_suptitle() == "Decoder self-attention, layer 1"
    assert figure.get_supxlabel() == "decoder input token (key)"
    assert figure.get_supylabel() == "predicted target token (query)"
    assert figure.axes[-1].get_ylabel() == "attention weight"  # of the colour bar
    for layer, head, title in (
        (None, None, "Encoder-decoder attention, mean over all layers and heads"),
        (1, None, "Encoder-decoder attention, layer 1, mean over all heads"),
        (1, 0, "Encoder-decoder attention, layer 1, head 0"),
    ):
        axes, bar = alignment_figure(maps, layer, head).axes
        assert (axes.get_title(), axes.get_xlabel()) == (title, "source token (key)")
        assert bar.get_ylabel() == "attention weight"


@pytest.mark.parametrize(
    ("heads", "aspect_ratio", "across"),
    [
        (8, 1.0, 4),  # squares: 4 × 2 is 2.0 wide, 2 × 4 is 0.5, and 3 × 3 has an empty place
        (8, 4.0, 2),  # four times as wide as high: 2 × 4 is 2.0 wide, 1 × 8 only 0.5
        (1, 0.3, 1),
        (16, 1.0, 4),
    ],
)
def test_heads_are_set_out_to_a_readable_form(heads: int, aspect_ratio: float, across: int) -> None:
    assert figures._heads_per_row(heads, aspect_ratio) == across


def test_alignment_is_the_average_of_the_heads(maps: AttentionMaps) -> None:
    np.testing.assert_allclose(pictures_of(alignment_figure(maps))[0], maps.cross.mean(axis=(0, 1)), atol=1e-7)
    np.testing.assert_allclose(pictures_of(alignment_figure(maps, 1))[0], maps.cross[1].mean(axis=0), atol=1e-7)
    np.testing.assert_array_equal(pictures_of(alignment_figure(maps, 1, 0))[0], maps.cross[1, 0])


def test_a_figure_is_written_with_odd_tokens_in_it(maps: AttentionMaps, tmp_path: Path) -> None:
    odd = [Token("$x_{$", True, False), Token("\x00\x1b", True, False), Token("\ue123", True, False)]
    tokens = (odd * len(maps.target_tokens))[: len(maps.target_tokens)]
    path = save_figure(head_figure(replace(maps, target_tokens=tokens), "cross", 0, 0), tmp_path / "new" / "head.png")
    assert path.read_bytes().startswith(PNG)


def test_bad_layers_and_heads_are_named(maps: AttentionMaps) -> None:
    for make in (
        lambda: head_figure(maps, "encoder", 0, 3),
        lambda: layer_figure(maps, "cross", 2),
        lambda: alignment_figure(maps, 7),
    ):
        with pytest.raises(ValueError, match="there is no (layer|head) [273] in"):
            make()


def test_a_path_that_is_no_picture_or_not_writable_is_named(maps: AttentionMaps, tmp_path: Path) -> None:
    figure = head_figure(maps, "encoder", 0, 0)
    with pytest.raises(ValueError, match=r"head\.xyz has no suffix of an image format; use one of .*png"):
        save_figure(figure, tmp_path / "head.xyz")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=re.escape(f"can't write {tmp_path / 'file' / 'head.png'}: ")):
        save_figure(figure, tmp_path / "file" / "head.png")


def test_a_font_is_sought_for_what_matplotlibs_own_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = frozenset(map(ord, "abc"))
    fonts = {"DejaVu Sans": letters, "Cyrillic only": frozenset(map(ord, "ж")), "Hangul": frozenset(map(ord, "이오"))}
    monkeypatch.setattr(figures, "_fonts", lambda: [(name, name) for name in fonts])
    monkeypatch.setattr(figures, "_characters_of", fonts.__getitem__)
    assert font_families("ab 이") == (["DejaVu Sans", "Hangul"], set())
    assert font_families("cab") == (["DejaVu Sans"], set())
    assert font_families("a漢") == (["DejaVu Sans"], {"漢"})


def test_a_missing_font_is_said_once(maps: AttentionMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(figures, "font_families", lambda text: (["DejaVu Sans"], {"이"}))
    monkeypatch.setattr(figures.logger, "warning_once", said.append)
    save_figure(head_figure(maps, "encoder", 0, 0), tmp_path / "head.svg")
    assert len(said) == 1 and "no installed font has the characters 이" in said[0] and "Nanum" in said[0]


def test_installed_fonts_include_matplotlibs_own() -> None:
    assert figures._fonts()[0][0] == "DejaVu Sans"
    assert ord("a") in figures._characters_of(figures._fonts()[0][1])


# --------------------------------------------------------------------------- the font that comes with the package


def test_hangul_is_drawn_where_the_system_has_no_font_for_it(
    maps: AttentionMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = matplotlib.get_data_path()  # of the fonts that come with matplotlib one has a box for every character
    bare = [entry for entry in font_manager.fontManager.ttflist if entry.fname.startswith(own)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", bare)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    figures._fonts.cache_clear()
    try:
        assert figures._fonts()[0][0] == "DejaVu Sans" and figures._fonts()[-1][0] == FAMILY
        assert font_families("two 이백오 원") == (["DejaVu Sans", FAMILY], set())
        assert font_families("漢") == (["DejaVu Sans"], {"漢"})
        figure = figures.alignment_figure(maps)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a glyph that no font has is a warning of matplotlib's
            save_figure(figure, tmp_path / "alignment.png")
            figure.savefig(tmp_path / "again.png")
    finally:
        figures._fonts.cache_clear()


def test_the_system_s_fonts_come_before_the_package_s() -> None:
    names = [name for name, _ in figures._fonts()]
    assert names[0] == "DejaVu Sans" and names[-1] == FAMILY and names.count(FAMILY) == 1


def test_the_font_has_all_that_the_embedded_corpus_can_write_and_its_licence() -> None:
    found = figures._characters_of(str(FONT_PATH))
    assert found >= set(characters()) and len(characters()) == 95 + 51 + 2350  # ASCII, letters, syllables of KS X 1001
    rows = draw_expressions("train", 2000)
    assert found >= {ord(letter) for row in rows for letter in row.ko}
    licence = FONT_PATH.with_name("OFL.txt").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE" in licence and "Copyright (c) 2010, NAVER Corporation" in licence
    name = FT2Font(str(FONT_PATH)).family_name
    assert name == FAMILY and "nanum" not in name.lower()  # a name that the licence reserves


def test_the_command_makes_the_font_again_and_names_what_a_font_lacks(tmp_path: Path) -> None:
    write_font_subset(FONT_PATH, tmp_path / "again.ttf")
    assert figures._characters_of(str(tmp_path / "again.ttf")) == figures._characters_of(str(FONT_PATH))
    dejavu = font_manager.findfont("DejaVu Sans")
    with pytest.raises(ValueError, match=r"lacks 2\d\d\d of the characters, e\.g\. '힝'"):
        write_font_subset(dejavu, tmp_path / "never.ttf")
    assert not (tmp_path / "never.ttf").exists()
