# SPDX-License-Identifier: BSD-3-Clause
"""Reports in a real browser: nothing is asked for, no script fails, clicks and keys do what they say, nothing is wider
than the page, and it prints."""

import base64

import pytest
from browser import Browser

import pykernel as pk

WIDTHS = (390, 1280)
PAGE = "document.documentElement.scrollWidth - window.innerWidth"
CLICK = "document.querySelector({!r}).click()"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A small likeness of the default sweep, and a PyTorch module."""
    folder = tmp_path_factory.mktemp("pages")
    grid = {"activation": ["relu", "tanh"], "init": ["he_normal", "normal(0.01)", "orthogonal"], "depth": [4, 16, 64]}
    pk.sweep(grid, {"width": 32}, replicas=8, store=folder / "out", progress=False)
    found = {"sweep": pk.report(folder / "out")}
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = [part for _ in range(12) for part in (torch.nn.Linear(32, 32), torch.nn.ReLU())]
    found["module"] = pk.report(torch.nn.Sequential(*layers), folder / "net.html", source="net.py:net")
    return found


def press(browser, *keys):
    for key in keys:
        browser.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key)
        browser.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)


@pytest.mark.parametrize("name", ["sweep", "module"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_opens_and_fits(browser, pages, name, width, scheme):
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.width(width)
    assert browser.open(pages[name].as_uri()) == ([], [])
    assert browser.evaluate(PAGE) <= 0
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"
    assert dark == (scheme == "dark")
    # every figure is drawn, has a name, and every control has a label
    assert browser.evaluate("document.querySelectorAll('.plot svg path.mark').length") > 10
    assert browser.evaluate(
        "[...document.querySelectorAll('.plot svg')].every(s => s.getAttribute('aria-label').length > 20)"
    )
    assert browser.evaluate("[...document.querySelectorAll('select, input')].every(e => e.labels.length == 1)")
    assert browser.evaluate(
        "(all => all.length == new Set(all.map(e => e.id)).size)([...document.querySelectorAll('[id]')])"
    )


def test_clicks_change_what_they_should(browser, pages):
    browser.width(1280)
    browser.open(pages["sweep"].as_uri())
    chosen = "document.querySelector('#chosen .cell').textContent"
    browser.evaluate(
        "[...document.querySelectorAll('#map td')]"
        ".find(t => t.ariaLabel.startsWith('tanh, normal(0.01), depth 64')).click()"
    )
    assert "tanh, normal(0.01), depth 64" in browser.evaluate(chosen) and "vanishing" in browser.evaluate(chosen)
    assert "--activation tanh --init 'normal(0.01)' --depth 64" in browser.evaluate(chosen)
    assert browser.evaluate("document.querySelector('#phases select').value") == "tanh"
    theory = "document.querySelectorAll('#curve path.theory').length"
    before = browser.evaluate(theory)
    browser.evaluate(CLICK.format("#curve input"))
    assert before > browser.evaluate(theory) == 0
    lines = "document.querySelectorAll('#curve g.series').length"
    assert browser.evaluate(lines) == 3
    browser.evaluate(CLICK.format("#curve .legend button"))
    assert browser.evaluate(lines) == 2
    assert browser.evaluate("document.querySelector('#curve .legend button').getAttribute('aria-pressed')") == "false"
    choose = "s => { s.selectedIndex = 1; s.dispatchEvent(new Event('change')); }"
    browser.evaluate(f"({choose})(document.querySelectorAll('#curve select')[1])")  # along init
    assert browser.evaluate("document.querySelector('#curve svg .label').textContent") == "init"
    browser.evaluate(f"({choose})(document.querySelectorAll('#map select')[2])")  # a quantity in the cells
    assert browser.evaluate("[...document.querySelectorAll('#map td')].every(t => /\\d/.test(t.textContent))")
    assert browser.seen() == ([], [])


def test_tables_open_sort_and_copy(browser, pages):
    browser.open(pages["sweep"].as_uri())
    browser.evaluate(CLICK.format("#cells summary"))
    browser.wait("document.querySelectorAll('#cells tbody tr').length == 18")
    browser.evaluate("document.querySelectorAll('#cells thead button')[5].click()")
    assert browser.evaluate("document.querySelectorAll('#cells thead th')[5].getAttribute('aria-sort')") == "ascending"
    browser.evaluate(
        "document.execCommand = () => (window.copied = document.activeElement.value);"
        "navigator.clipboard.writeText = () => Promise.reject()"
    )
    browser.evaluate(CLICK.format("#cells .copier button"))
    browser.wait("document.querySelector('#cells .said').textContent == 'copied'")
    copied = browser.evaluate("window.copied").splitlines()
    assert len(copied) == 19 and copied[0].split("\t")[:4] == ["activation", "init", "depth", "verdict"]
    browser.evaluate(CLICK.format("#curve summary"))
    browser.wait("document.querySelectorAll('#curve tbody tr').length == 9")
    assert browser.seen() == ([], [])


def test_keys_reach_cells_and_points(browser, pages):
    browser.open(pages["sweep"].as_uri())
    assert browser.evaluate("document.querySelectorAll('#map td[tabindex=\"0\"]').length") == 1  # one stop for Tab
    browser.evaluate("document.querySelector('#map td').focus()")
    press(browser, "ArrowRight", "ArrowDown", "Enter")
    said = browser.evaluate("document.activeElement.ariaLabel")
    assert said.startswith("relu, normal(0.01), depth 16") and "relu, normal(0.01), depth 16" in browser.evaluate(
        "document.querySelector('#chosen .cell').textContent"
    )
    press(browser, *["ArrowRight"] * 2)  # over the edge into the next panel
    assert browser.evaluate("document.activeElement.ariaLabel").startswith("tanh, normal(0.01), depth 4")
    browser.evaluate("document.querySelector('#curve svg').focus()")
    press(browser, "ArrowRight", "ArrowRight", "ArrowDown")
    spoken = browser.evaluate("document.querySelector('#curve .spoken').textContent")
    assert spoken.startswith("relu, normal(0.01), depth 16, ")
    assert browser.evaluate("document.querySelectorAll('#curve .ring').length") == 1
    press(browser, "Escape")
    assert browser.evaluate("document.querySelector('#curve .tip').hidden")
    assert browser.seen() == ([], [])


def test_a_pointer_shows_what_a_point_is(browser, pages):
    browser.width(1280)
    browser.open(pages["module"].as_uri())
    at = browser.evaluate(
        "(() => { const m = document.querySelector('#network path.mark'); m.scrollIntoView({block: 'center'});"
        "const r = m.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
    browser.wait("!document.querySelector('#network .tip').hidden")
    assert "layer 0" in browser.evaluate("document.querySelector('#network .tip').textContent")


@pytest.mark.parametrize("name", ["sweep", "module"])
def test_it_prints(browser, pages, name):
    """A PDF of few pages, light even for readers in the dark, without what only a screen can use."""
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.open(pages[name].as_uri())
    content = base64.b64decode(browser.ask("Page.printToPDF")["data"])
    assert (
        content.startswith(b"%PDF")
        and 2 <= content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") + content.count(b"/Type /Page/") <= 12
    )
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate(
        "[...document.querySelectorAll('.buttons button, nav')].every(e => !e.getClientRects().length)"
    )
    browser.ask("Emulation.setEmulatedMedia", media="")
    assert browser.seen() == ([], [])
