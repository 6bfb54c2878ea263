"""The page in headless Chromium, at a phone's and a desk's width: it fits, complains of nothing, plays, obeys keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium, chromium

from asr_distill.report.page.examples import collect_examples
from asr_distill.report.page.experiment import Experiment
from asr_distill.report.page.page import page

pytestmark = pytest.mark.slow
WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def written(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    opened = Experiment(experiment)
    path = tmp_path_factory.mktemp("browser") / "page.html"
    path.write_text(page(opened, collect_examples(opened, 5, 8_000_000)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    folder = tmp_path_factory.mktemp("chromium")
    with chromium(folder) as opened:
        yield opened
    shutil.rmtree(folder, ignore_errors=True)  # a profile is tens of megabytes


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_and_nothing_complains(browser: Chromium, written: Path, width: int, dark: bool) -> None:
    browser.open(written, width, dark=dark)
    browser.ask("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert browser.ask("[innerWidth, document.documentElement.scrollWidth]") == [width] * 2
    # what is wider than the page scrolls in a box of its own; nothing else sticks out
    assert browser.ask("""[...document.querySelectorAll('body *')].filter(item => !item.closest('.scroll') &&
        item.getClientRects().length && item.getBoundingClientRect().right > innerWidth + 0.5).map(
        item => item.outerHTML.slice(0, 80))""") == []
    scrolling = browser.ask("""[...document.querySelectorAll('.scroll')].map(
        box => [box.scrollWidth > box.clientWidth + 1, getComputedStyle(box).overflowX, box.tabIndex])""")
    assert len(scrolling) >= 4 and all(box[1:] == ["auto", 0] for box in scrolling)
    assert any(wide for wide, *_ in scrolling) == (width == 390)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in browser.requests if url.startswith("file:")]) == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_letters_are_large_enough_to_read_and_buttons_to_hit(browser: Chromium, written: Path, width: int) -> None:
    browser.open(written, width)
    browser.ask("document.querySelectorAll('details').forEach(item => item.open = true)")
    # of letters in charts: as drawn, in CSS pixels of the page
    sizes = browser.ask("""[...document.querySelectorAll('svg.chart text')].map(item =>
        parseFloat(getComputedStyle(item).fontSize) * item.ownerSVGElement.getScreenCTM().a)""")
    assert min(sizes) >= 10 and max(sizes) <= 18
    heights = browser.ask("[...document.querySelectorAll('button.word')].map(item => item.offsetHeight)")
    assert min(heights) >= 20
    # no text of a chart is cut off
    assert browser.ask("""[...document.querySelectorAll('svg.chart text')].filter(item => {
        const own = item.getBoundingClientRect(), all = item.ownerSVGElement.getBoundingClientRect();
        return own.left < all.left - 1 || own.right > all.right + 1 || own.bottom > all.bottom + 1;
    }).map(item => item.textContent)""") == []


@pytest.mark.parametrize("dark", [False, True])
def test_letters_stand_out_from_the_paper(browser: Chromium, written: Path, dark: bool) -> None:
    """Contrast as WCAG 2 counts it: 4.5 for text, 3 for what is drawn."""
    browser.open(written, 1280, dark=dark)
    contrast = """(() => {
        const light = text => text.match(/[0-9.]+/g).slice(0, 3).map(value => value / 255).map(value =>
            value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4).reduce(
            (sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
        const behind = item => {
            for (let at = item; at; at = at.parentElement) {
                const colour = getComputedStyle(at).backgroundColor;
                if (!colour.startsWith('rgba(0, 0, 0, 0')) return colour;
            }
            return 'rgb(255, 255, 255)';
        };
        const ratio = (item, colour) => {
            const [one, other] = [light(colour), light(behind(item))].sort((a, b) => b - a);
            return (one + 0.05) / (other + 0.05);
        };
        return selectors => selectors.flatMap(([selector, property, least]) =>
            [...document.querySelectorAll(selector)].filter(item =>
                ratio(item.closest('svg') || item, getComputedStyle(item)[property]) < least)
                .map(item => `${selector}: ${item.outerHTML.slice(0, 60)}`));
    })()"""
    selectors = [["p, li, td, th, dd, dt, h1, h2, h3, small, .who span, a, summary, pre", "color", 4.5],
                 ["button.word, button.word span, button.word s, button.word sup", "color", 4.5],
                 ["svg.chart text", "fill", 4.5], [".mark:not(.hollow):not(.role-gmm)", "fill", 3],
                 ["path.line, path.dashed", "stroke", 3]]
    assert browser.ask(f"({contrast})({selectors})") == []


def test_a_word_plays_from_where_it_is_spoken(browser: Chromium, written: Path) -> None:
    browser.open(written, 1280)
    browser.wait("[...document.querySelectorAll('audio')].every(player => player.readyState >= 1)")
    durations = browser.ask("[...document.querySelectorAll('audio')].map(player => player.duration)")
    shown = browser.ask("[...document.querySelectorAll('.example h3 small')].map(item => item.textContent)")
    assert len(durations) == 5
    for duration, text in zip(durations, shown, strict=True):
        assert duration == pytest.approx(float(text.split(", ")[1].removesuffix(" s")), abs=0.06)
    browser.ask("""(() => {
        window.begun = [];  // where each play began: the machine may be too slow to look later
        document.querySelectorAll('audio').forEach((player, number) =>
            player.addEventListener('play', () => window.begun.push([number, player.currentTime])));
        window.last = document.querySelector('.example .said').lastElementChild;
        window.last.click();
    })()""")
    browser.wait("window.begun.length === 1")
    number, began = browser.ask("window.begun[0]")
    at = float(browser.ask("window.last.dataset.at"))
    assert number == 0 and at - 0.1 < began <= at
    browser.ask("document.querySelectorAll('.example')[1].querySelector('button.word').click()")
    browser.wait("window.begun.length === 2 && document.querySelector('audio').paused")  # one voice at a time
    assert browser.errors == []


def test_keys_reach_every_word(browser: Chromium, written: Path) -> None:
    browser.open(written, 1280)
    browser.ask("""(() => {
        window.played = [];
        document.querySelectorAll('audio').forEach(player => { player.play = () => {
            window.played.push(player.currentTime); return Promise.resolve(); }; });
        window.line = [...document.querySelectorAll('.said')].find(item => item.children.length > 2);
        window.line.children[0].focus();
    })()""")
    here = "[...window.line.children].indexOf(document.activeElement)"
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("Home", 0), ("ArrowLeft", 0)):
        browser.press(key)
        assert browser.ask(here) == place
    browser.press("End")
    last = browser.ask("window.line.children.length - 1")
    assert browser.ask(here) == last
    assert browser.ask("[...window.line.children].map(word => word.tabIndex)") == [-1] * last + [0]
    browser.wait("[...document.querySelectorAll('audio')].every(player => player.readyState >= 1)")
    browser.ask("document.activeElement.click()")  # as Enter and Space do on a button
    assert browser.ask("window.played.length") == 1


def test_paper_shows_what_is_folded(browser: Chromium, written: Path) -> None:
    browser.open(written, 1280, dark=True)
    browser.send("Emulation.setEmulatedMedia", media="print",
                 features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('audio')).display") == "none"
    heights = browser.ask("""[...document.querySelectorAll('details:not(.long) > :not(summary)')].map(
        item => item.getBoundingClientRect().height)""")
    assert len(heights) == 2 and min(heights) > 10  # folded parts too
    browser.send("Emulation.setEmulatedMedia", media="", features=[])


def test_a_script_in_the_page_that_is_not_its_own_does_not_run(browser: Chromium, written: Path,
                                                               tmp_path: Path) -> None:
    """The policy holds: what gets into the page all the same neither runs nor loads."""
    evil = "<script>window.evil = 1</script><img src='http://localhost:9/x.png'><p onclick='window.evil = 1'>x</p>"
    changed = tmp_path / "changed.html"
    changed.write_text(written.read_text(encoding="utf-8").replace("</footer>", evil + "</footer>"), encoding="utf-8")
    browser.open(changed, 1280)
    assert browser.ask("typeof window.evil") == "undefined"
    assert any("Content Security Policy" in error for error in browser.errors)
    assert browser.ask("document.querySelectorAll('footer img')[0].naturalWidth") == 0
