"""The attention page in a browser: light and dark, phone and desktop, mouse and keyboard, accessibility, no requests.

Needs the package playwright and Chromium. The environment variable CHROMIUM gives its path if it is not in PATH. The
accessibility rules also need the npm package axe-core, which `make test-browser` installs; the environment variable
AXE_CORE gives the path of another copy of axe.min.js.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_vanilla_transformer import attention_maps
from hf_vanilla_transformer.visualization.maps import AttentionMaps
from hf_vanilla_transformer.visualization.page import save_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; see the extra `browser`")

AXE_CORE = Path(__file__).resolve().parents[2] / ".cache/npm/node_modules/axe-core/axe.min.js"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = "<script>document.title='run'</script> <img src=x onerror=\"document.title='run'\"> two won"
QUIET = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"

pytestmark = pytest.mark.slow  # starting a browser takes seconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("Chromium is not installed; install it, or set the environment variable CHROMIUM to its path")
    sandbox = (
        ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    )  # Chromium's sandbox does not work as root
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=[*QUIET.split(), *sandbox])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def maps(model: Any, tokenizer: Any) -> AttentionMaps:
    return attention_maps(model, tokenizer, HOSTILE, "이백오 원")


@pytest.fixture(scope="module")
def page_path(maps: AttentionMaps, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_page(maps, tmp_path_factory.mktemp("page") / "page.html", layer=0, head=1)


class Visit:
    """An open page with the requests that it made and the messages that it logged."""

    def __init__(self, browser: Any, path: Path, **settings: Any) -> None:
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.goto(path.as_uri())


@pytest.fixture
def visit(browser: Any, page_path: Path) -> Iterator[Any]:
    opened: list[Visit] = []

    def open_page(**settings: Any) -> Visit:
        opened.append(Visit(browser, page_path, **{"viewport": DESKTOP, **settings}))
        return opened[-1]

    yield open_page
    for one in opened:
        one.context.close()


def contrast(foreground: str, background: str) -> float:
    """Return the contrast ratio (WCAG) of two colours given as rgb(r, g, b)."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(foreground), luminance(background)), reverse=True)
    return (high + 0.05) / (low + 0.05)


COLOURS = "(e) => { const s = getComputedStyle(e); return [s.color, s.backgroundColor]; }"


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable_and_asks_for_nothing(visit: Any, viewport: dict, scheme: str, maps: Any) -> None:
    opened = visit(color_scheme=scheme, viewport=viewport)
    page = opened.page
    assert page.locator("#rows button").count() == len(maps.target_tokens)
    assert page.locator("#columns span").count() == len(maps.source_tokens)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]  # nothing sticks out
    text, ground = page.locator("body").evaluate(COLOURS)
    assert contrast(text, ground) >= 7
    assert (contrast(ground, "rgb(0, 0, 0)") < 3) == (scheme == "dark")
    for pair in page.locator("#columns span, #rows button").evaluate_all(f"all => all.map({COLOURS})"):
        assert contrast(*pair) >= 4.5
    assert opened.requests == [page.url] and opened.messages == []


def test_a_script_in_a_sentence_is_shown_and_not_run(visit: Any) -> None:
    page = visit().page
    assert page.locator("#source").inner_text() == HOSTILE
    assert page.title() == "Attention weights"
    assert page.locator("main img, main script").count() == 0


def test_pointing_at_a_token_shows_where_it_looks(visit: Any, maps: AttentionMaps) -> None:
    page = visit().page
    page.locator("#rows button").nth(2).hover()
    shown = [
        text.removeprefix("<").removesuffix("%").strip() for text in page.locator("#columns small").all_inner_texts()
    ]
    weights = maps.cross[0, 1, 2]
    assert all(abs(int(text) - 100 * weight) < 1 for text, weight in zip(shown, weights, strict=True))
    said = page.locator("#said").inner_text()
    assert said.startswith(f"“{maps.target_tokens[2].text}”")
    assert f"attends to “{maps.source_tokens[int(weights.argmax())].text}”" in said


def test_more_weight_stands_out_more(visit: Any, maps: AttentionMaps) -> None:
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme).page
        page.locator("#rows button").nth(1).hover()
        grounds = [colours[1] for colours in page.locator("#columns span").evaluate_all(f"all => all.map({COLOURS})")]
        page_ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        # One hue whose lightness alone tells: sorted by weight, the contrast with the page only grows.
        contrasts = [contrast(ground, page_ground) for ground in grounds]
        by_weight = [contrasts[i] for i in maps.cross[0, 1, 1].argsort(kind="stable")]
        assert all(later >= earlier - 0.02 for earlier, later in zip(by_weight, by_weight[1:], strict=False))


def test_the_keyboard_reaches_everything(visit: Any, maps: AttentionMaps) -> None:
    page = visit().page
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(document.activeElement.closest('[id]') || document.activeElement).id"))
    assert {"kinds", "layer", "head", "theme", "rows", "cells", "heads"} <= set(reached)
    page.locator("#rows button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#said").inner_text().startswith(f"“{maps.target_tokens[2].text}”")
    page.keyboard.press("End")
    assert page.locator("#said").inner_text().startswith("“</s>”")
    assert page.locator("#rows button[tabindex='0']").count() == 1


def test_every_focused_element_has_a_visible_outline(visit: Any) -> None:
    page = visit().page
    for _ in range(12):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "(() => { const e = document.activeElement; if (e === document.body) return null; "
            "const s = getComputedStyle(e); return [s.outlineStyle, parseFloat(s.outlineWidth), s.outlineColor, "
            "getComputedStyle(document.body).backgroundColor]; })()"
        )
        if style is not None:
            assert style[0] == "solid" and style[1] >= 3 and contrast(style[2], style[3]) >= 3


def test_arrow_keys_select_a_head(visit: Any) -> None:
    page = visit().page
    page.locator("#heads button[tabindex='0']").focus()
    assert page.locator("#heads button[tabindex='0']").count() == 1
    page.keyboard.press("ArrowRight")
    assert page.locator("#head").input_value() == "2"  # the page was opened at head 1
    assert page.locator("#map-title").inner_text() == "Cross-attention, layer 0, head 2"
    page.keyboard.press("ArrowRight")  # there are heads 0 to 2
    assert page.locator("#head").input_value() == "2"
    page.keyboard.press("Home")
    assert page.locator("#heads button[aria-checked='true']").inner_text() == "head 0"
    assert page.evaluate("document.activeElement.innerText") == "head 0"


def test_arrow_keys_read_the_cells_of_the_map(visit: Any, maps: AttentionMaps) -> None:
    page = visit().page
    page.locator("#heads button[tabindex='0']").focus()
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "cells"
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    said = page.locator("#cell-said").inner_text()
    assert said.startswith(f"Row 3, “{maps.target_tokens[2].text}”; column 2, “{maps.source_tokens[1].text}”: ")
    shown = int(said.partition("attention weight ")[2].strip(". <%\u00a0"))
    assert abs(shown - 100 * maps.cross[0, 1, 2, 1]) < 1
    page.keyboard.press("End")
    assert f"; column {len(maps.source_tokens)}, “</s>”" in page.locator("#cell-said").inner_text()


def test_the_page_explains_the_columns_of_its_table_and_no_others(visit: Any) -> None:
    page = visit().page
    for kind in ("encoder", "decoder", "cross"):
        page.locator(f"input[value='{kind}']").check()
        columns = page.locator("#numbers thead th").all_inner_texts()
        assert columns == ["layer", "head", *page.locator("#numbers-note dt").all_inner_texts()]


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_core_finds_no_violation(visit: Any, viewport: dict, scheme: str) -> None:
    script = Path(os.environ.get("AXE_CORE") or AXE_CORE)
    if not script.is_file():
        pytest.skip("axe-core is not installed; run make test-browser, or set the environment variable AXE_CORE")
    page = visit(color_scheme=scheme, viewport=viewport).page
    page.evaluate(script.read_text(encoding="utf-8"))
    for kind in ("encoder", "decoder", "cross"):
        page.locator(f"input[value='{kind}']").check()
        found = page.evaluate("axe.run()")
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]] == []
        assert len(found["passes"]) > 20  # the rules were applied


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_borders_of_controls_have_enough_contrast(visit: Any, scheme: str) -> None:
    page = visit(color_scheme=scheme).page
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    borders = page.locator("select, #rows button, #heads button").evaluate_all(
        "all => all.map((e) => getComputedStyle(e).borderTopColor)"
    )
    assert borders and all(contrast(border, ground) >= 3 for border in borders)


def test_tapping_works_without_a_mouse(visit: Any, maps: AttentionMaps) -> None:
    page = visit(viewport=PHONE, has_touch=True).page
    page.locator("#rows button").nth(1).tap()
    assert page.locator("#rows button[aria-checked='true']").inner_text() == maps.target_tokens[1].text


def test_kind_layer_and_head_are_chosen(visit: Any, maps: AttentionMaps) -> None:
    page = visit().page
    page.locator("#layer").select_option("1")
    page.locator("#heads button").nth(2).click()
    assert page.locator("#head").input_value() == "2"
    page.locator("#rows button").nth(0).hover()
    strongest = maps.source_tokens[int(maps.cross[1, 2, 0].argmax())].text
    assert f"attends to “{strongest}”" in page.locator("#said").inner_text()
    page.get_by_label("encoder self-attention", exact=True).check()
    assert page.locator("#rows button").count() == len(maps.source_tokens)
    assert page.locator("#layer option").count() == 1  # this model's encoder has one layer, its decoder two
    page.locator("#head").select_option("mean")
    page.locator("#rows button").nth(3).hover()
    mean = maps.encoder[0, :, 3].mean(axis=0)
    assert f"attends to “{maps.source_tokens[int(mean.argmax())].text}”" in page.locator("#said").inner_text()


def test_colours_follow_the_readers_choice(visit: Any) -> None:
    page = visit(color_scheme="light").page
    page.locator("#theme").select_option("dark")
    assert contrast(page.evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(0, 0, 0)") < 3
