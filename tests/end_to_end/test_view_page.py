"""The page to browse a release, in a real browser: found, filtered, turned, copied and compared by hand and by keys."""

import pytest
from doubles.browser import needs_browser, probed
from doubles.finished import finished

from plainchant.reporting.view import view

pytestmark = needs_browser

HOSTILE = "</script><script>parent.ran = true</script><img src='http://example.org/x' onerror='parent.ran = true'>"
HOSTILE += "\u202egnp.exe\x1b[2J"
TOOLS = """
const wait = milliseconds => new Promise(done => setTimeout(done, milliseconds));
const shown = () => [...page.querySelectorAll("ol > li > p")].map(text => text.textContent);
const choose = async (name, value) => {
  const select = page.querySelector(`select[name="${name}"]`);
  select.value = [...select.options].find(option => option.textContent === value).value;
  select.dispatchEvent(new inside.Event("change"));
};
const type = async words => {
  page.querySelector("input").value = words;
  page.querySelector("input").dispatchEvent(new inside.Event("input"));
  await wait(300);
};
const press = key => page.activeElement.dispatchEvent(new inside.KeyboardEvent("keydown", {key, bubbles: true}));
const count = () => page.getElementById("count").textContent;
"""


def rows(count, start=0):
    return [
        {"text": f"number {n} about {('lamps', 'bills', 'buses')[n % 3]}", "label": ("red", "blue")[n % 2], "cell": 0}
        for n in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    own = [{"text": HOSTILE, "label": "red", "cell": 0}, {"text": "y" * 90_000, "label": "red", "cell": 0}]
    one, other = finished(folder / "one", [*own, *rows(5_000)]), finished(folder / "other", rows(120, start=9_000))
    return {name: view(*runs, out=folder / name).read_text(encoding="utf-8") for name, runs in
            (("one.html", [one]), ("both.html", [one, other]))}  # fmt: skip


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("name", ["one.html", "both.html"])
def test_page_fits_asks_for_nothing_and_runs_nothing(tmp_path, pages, name, width):
    found = probed(tmp_path, pages[name], """
found.wide = page.scrollingElement.scrollWidth - inside.innerWidth;
found.items = page.querySelectorAll("ol > li").length;
found.first = page.querySelector("ol > li > p").textContent;
found.second = page.querySelectorAll("ol > li > p")[1].textContent.length;
page.querySelectorAll("ol > li")[1].querySelector("button").click();
found.whole = page.querySelectorAll("ol > li > p")[1].textContent.length;
found.small = [...page.querySelectorAll("button, select, input")].filter(
  one => one.offsetParent && one.getBoundingClientRect().height < 32).length;
const colours = () => inside.getComputedStyle(page.documentElement).backgroundColor;
found.before = colours();
page.querySelector("header button").click();
found.after = colours();
""", width=width)  # fmt: skip
    assert "error" not in found, found["error"]
    assert found["wide"] <= 0
    assert found["items"] == (50 if name == "one.html" else 100)
    assert found["first"] == HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
    assert (found["second"], found["whole"]) == (1_000, 90_000)
    assert found["requests"] == []
    assert found["ran"] is False
    assert found["small"] == 0
    assert found["before"] != found["after"]


def test_texts_are_found_filtered_and_turned(tmp_path, pages):
    found = probed(tmp_path, pages["one.html"], TOOLS + """
await type("lamps NUMBER 41");
found.searched = shown();
const began = inside.performance.now();
await type("lamps");
found.milliseconds = inside.performance.now() - began;
await choose("label", "blue");
found.filtered = [count(), shown()[0], page.querySelector("#steps span").textContent];
page.querySelector("#steps [name=next]").click();
found.next = [page.querySelector("#steps span").textContent, page.querySelector("ol").start];
await type("nothing like this");
found.none = [count(), shown().length];
""", width=1200)  # fmt: skip
    assert "error" not in found, found["error"]
    assert all("lamps" in text and "41" in text for text in found["searched"])
    assert "number 141 about lamps" in found["searched"]
    # 834 of 5,002 texts are about lamps and blue
    assert found["filtered"] == ["833 of 5002 texts", "number 3 about lamps", "page 1 of 17"]
    assert found["next"] == ["page 2 of 17", 51]
    assert found["none"] == ["0 of 5002 texts", 0]
    assert found["milliseconds"] < 3_000


def test_keys_do_what_hands_do(tmp_path, pages):
    found = probed(tmp_path, pages["one.html"], TOOLS + """
let copied = null;
Object.defineProperty(inside.navigator, "clipboard", {value: {writeText: async text => { copied = text; }}});
press("/");
found.searching = page.activeElement.id;
press("Escape");
press("j"); press("j"); press("j");
found.third = page.activeElement.querySelector("p").textContent;
press("c");
await wait(50);
found.copied = [copied, page.getElementById("told").textContent];
press("k"); press("n");
found.turned = page.querySelector("#steps span").textContent;
press("p");
found.back = page.querySelector("#steps span").textContent;
page.querySelectorAll("ol > li")[2].querySelector(".tags button").click();
await wait(50);
found.clicked = copied;
""", width=1200)  # fmt: skip
    assert "error" not in found, found["error"]
    assert found["searching"] == "search"
    assert found["third"] == found["clicked"] == "number 0 about lamps"
    assert found["copied"] == ["number 0 about lamps", "copied"]
    assert (found["turned"], found["back"]) == ("page 2 of 101", "page 1 of 101")


def test_two_runs_are_seen_beside_each_other_and_alone(tmp_path, pages):
    found = probed(tmp_path, pages["both.html"], TOOLS + """
const names = () => [...page.querySelectorAll("#lists h2")].map(name => name.textContent);
const left = () => [...page.querySelectorAll("#lists section")].map(own => own.getBoundingClientRect().left);
found.both = [names(), new Set(left()).size];
await type("about buses");
found.searched = count();
await choose("run", "other");
found.one = [names(), count()];
""", width=1200)  # fmt: skip
    assert "error" not in found, found["error"]
    assert found["both"] == [["one", "other"], 2]
    assert found["searched"] == "1666 of 5002 · 40 of 120 texts"
    assert found["one"] == [["other"], "40 of 120 texts"]
