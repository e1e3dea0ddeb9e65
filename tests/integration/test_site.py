# SPDX-License-Identifier: BSD-3-Clause
"""The documentation site in a real browser: every page asks for nothing outside, no script fails, nothing runs off its
column."""

import pytest
from browser import Browser
from places import ROOT

SITE = ROOT / "docs" / "_build" / "html"
WIDTHS = (390, 1024, 1366, 1920)  # a phone, a tablet, laptops, a screen
WIDE = """[...document.querySelectorAll("article pre, article img, article table, article math[display=block]")]
    .filter(e => e.getClientRects().length && e.tagName == "PRE" && e.scrollWidth > e.clientWidth + 1)
  .map(e => e.innerText.slice(0, 80))"""
PAGE = "document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


def pages():
    found = sorted(SITE.rglob("*.html"))
    assert len(found) > 25, "make docs builds the site first"
    return [page for page in found if not {"_static", "_modules"} & set(page.parts)]


def test_the_browser_sees_what_it_must(browser, tmp_path):
    """A page with every fault that is looked for."""
    (tmp_path / "bad.html").write_text(
        "<article><pre style='width:50px'>" + "x" * 200 + "</pre><img src='http://127.0.0.1:9/x.png'></article>"
        "<script src='missing.js'></script><script>console.error('said'); nothing.at.all</script>"
    )
    browser.width(WIDTHS[0])
    asked, said = browser.open((tmp_path / "bad.html").as_uri())
    assert asked == ["http://127.0.0.1:9/x.png"]
    for words in ("said", "nothing is not defined", "missing.js"):
        assert words in " ".join(said)
    assert browser.evaluate(WIDE) == ["x" * 80] and browser.evaluate(PAGE) > 0


def test_no_page_asks_for_anything_outside_and_no_script_fails(browser):
    for page in pages():
        asked, said = browser.open(page.as_uri())
        assert (page.name, asked, said) == (page.name, [], [])


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_runs_off_the_column(browser, width):
    browser.width(width)
    for page in pages():
        browser.open(page.as_uri())
        assert (page.name, browser.evaluate(WIDE)) == (page.name, [])
        assert browser.evaluate(PAGE) <= 0, page.name


def test_formulas_and_figures_are_there(browser):
    browser.width(1366)
    browser.open((SITE / "theory.html").as_uri())
    assert browser.evaluate("[...document.querySelectorAll('math')].every(m => m.getBoundingClientRect().height > 5)")
    for page in (SITE / "gallery").glob("[0-9]*.html"):
        browser.open(page.as_uri())
        images = browser.evaluate("[...document.querySelectorAll('article img')].map(i => i.naturalWidth)")
        assert images and min(images) > 300, page.name


def test_the_search_finds(browser):
    asked, said = browser.open((SITE / "search.html").as_uri() + "?q=vanishing")
    browser.wait("document.querySelectorAll('#search-results li').length > 3")
    assert (asked, said) == ([], []) and browser.seen() == ([], [])
