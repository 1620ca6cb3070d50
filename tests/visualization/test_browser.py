"""The attention page in a real browser: light and dark, phone and desktop, mouse and keyboard, and no request leaves.

Needs the package playwright and Chromium; the variable CHROMIUM names its program where it isn't on the path.
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

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = "<script>document.title='run'</script> <img src=x onerror=\"document.title='run'\"> two won"
QUIET = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"

pytestmark = pytest.mark.slow  # starting a browser takes seconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium is installed; install one, or name its program in the variable CHROMIUM")
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # Chromium refuses root's
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
    """One opened page with what it asked the network for and what it complained about."""

    def __init__(self, browser: Any, path: Path, **settings: Any) -> None:
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
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
    """WCAG's contrast ratio of two colours written as rgb(r, g, b)."""

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
    assert opened.requests == [page.url] and opened.complaints == []


def test_a_script_in_a_sentence_is_shown_and_not_run(visit: Any) -> None:
    page = visit().page
    assert page.locator("#source").inner_text() == HOSTILE
    assert page.title() == "What attention looks at"
    assert page.locator("main img, main script").count() == 0


def test_pointing_at_a_token_shows_where_it_looks(visit: Any, maps: AttentionMaps) -> None:
    page = visit().page
    page.locator("#rows button").nth(2).hover()
    shown = [text.removesuffix("%").strip() for text in page.locator("#columns small").all_inner_texts()]
    weights = maps.cross[0, 1, 2]
    assert all(abs(int(text) - 100 * weight) < 1 for text, weight in zip(shown, weights, strict=True))
    said = page.locator("#said").inner_text()
    assert said.startswith(f"“{maps.target_tokens[2].text}”")
    assert f"looks at “{maps.source_tokens[int(weights.argmax())].text}”" in said


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
    assert {"kinds", "layer", "head", "theme", "rows", "heads"} <= set(reached)
    page.locator("#rows button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#said").inner_text().startswith(f"“{maps.target_tokens[2].text}”")
    page.keyboard.press("End")
    assert page.locator("#said").inner_text().startswith("“</s>”")
    assert page.locator("#rows button[tabindex='0']").count() == 1


def test_tapping_works_without_a_mouse(visit: Any, maps: AttentionMaps) -> None:
    page = visit(viewport=PHONE, has_touch=True).page
    page.locator("#rows button").nth(1).tap()
    assert page.locator("#rows button[aria-pressed='true']").inner_text() == maps.target_tokens[1].text


def test_kind_layer_and_head_are_chosen(visit: Any, maps: AttentionMaps) -> None:
    page = visit().page
    page.locator("#layer").select_option("1")
    page.locator("#heads button").nth(2).click()
    assert page.locator("#head").input_value() == "2"
    page.locator("#rows button").nth(0).hover()
    strongest = maps.source_tokens[int(maps.cross[1, 2, 0].argmax())].text
    assert f"looks at “{strongest}”" in page.locator("#said").inner_text()
    page.get_by_label("encoder", exact=True).check()
    assert page.locator("#rows button").count() == len(maps.source_tokens)
    assert page.locator("#layer option").count() == 1  # this model's encoder has one layer, its decoder two
    page.locator("#head").select_option("average")
    page.locator("#rows button").nth(3).hover()
    mean = maps.encoder[0, :, 3].mean(axis=0)
    assert f"looks at “{maps.source_tokens[int(mean.argmax())].text}”" in page.locator("#said").inner_text()


def test_colours_follow_the_readers_choice(visit: Any) -> None:
    page = visit(color_scheme="light").page
    page.locator("#theme").select_option("dark")
    assert contrast(page.evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(0, 0, 0)") < 3
