"""The page: well-formed, self-contained, escaped, complete."""

import re

import pytest
from pages import Checked

from speechadapt_eval import EvalError, score
from speechadapt_eval.report.chart import Chart, Series, smooth, svg, training_charts
from speechadapt_eval.report.page import Page, render_page, write_page
from speechadapt_eval.report.systems import SystemRow

EVIL = '<script>alert("1")</script>&"\''


@pytest.fixture
def page():
    refs = {"u1": "добры дзень", "u2": "раз два тры", "u3": "так", "beep": ""}
    base = score(refs, {"u1": "добры день", "u2": "раз", "u3": "<b>", "beep": "дзякуй"})
    good = score(refs, {"u1": "добры дзень", "u2": "раз два", "u3": "так", "beep": ""})
    rows = [
        SystemRow.measured("frozen" + EVIL, "30 s", base, seconds=12.5),
        SystemRow.measured(
            "adapter", "1 s", good, baseline=base, trainable=812_032, base_parameters=72_593_920
        ),
    ]
    return Page(
        title="Title " + EVIL,
        intro=["Intro " + EVIL],
        rows=rows,
        systems={"frozen" + EVIL: base, "adapter": good},
        audio={"u1": "bird.ogg" + EVIL},
        charts=training_charts([(i, 5 / i) for i in range(1, 1000)], [(500, 0.5), (1000, 0.4)]),
        next_commands=["# next", "speechadapt transcribe <file> && echo"],
        language="be",
        footer=["Licence " + EVIL],
    )


def test_parses_and_holds_everything(page):
    html = render_page(page)
    parsed = Checked(html)
    text = "".join(parsed.text)
    for row in page.rows:
        assert all(cell in parsed.text for cell in row.cells())
    for part in (page.title, *page.intro, *page.footer, *page.next_commands):
        assert part in text
    for utterance in page.systems["adapter"].utterances:
        assert utterance.id in text
    assert parsed.tags.count("article") == 4
    assert parsed.attributes.count(("role", "img")) == 2  # charts
    assert ("lang", "be") in parsed.attributes
    assert "u1 · bird.ogg" in text and "812,032" in text


def test_nothing_is_executed_or_fetched(page):
    html = render_page(page)
    parsed = Checked(html)
    assert "script" not in parsed.tags and "b" not in parsed.open
    assert not {"link", "img", "iframe", "object"} & set(parsed.tags)
    assert not re.search(r"https?://|url\(|@import", html)
    assert not {"src", "href", "onclick"} & {name for name, _ in parsed.attributes}
    assert len(html) < 40_000


def test_worst_first_and_cut(page):
    ids = re.findall(r"<h3>([\w.]+)", render_page(page))
    assert ids[0] == "u2"  # the only one the adapter gets wrong
    cut = render_page(Page("t", systems=page.systems, worst=2))
    assert cut.count("<article") == 2 and "The worst 2 of 4 utterances" in cut


def test_errors_are_marked(page):
    html = render_page(page)
    assert '<span class="sub"><ins>день</ins><del>дзень</del></span>' in html
    assert '<del class="gone">тры</del>' in html
    assert '<ins class="more">дзякуй</ins>' in html
    assert "nothing spoken" in html and "nothing heard" in html


def test_an_empty_page_is_still_a_page():
    Checked(render_page(Page("nothing yet")))


def test_systems_must_match():
    one, two = score({"u1": "a"}, {"u1": "a"}), score({"u2": "a"}, {"u2": "a"})
    with pytest.raises(EvalError, match="different utterances"):
        render_page(Page("t", systems={"a": one, "b": two}))


def test_written_whole_or_not_at_all(page, tmp_path):
    path = tmp_path / "new" / "page.html"
    write_page(path, page)
    assert path.read_text(encoding="utf-8") == render_page(page)
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    with pytest.raises(EvalError, match="cannot write"):
        write_page(path / "below-a-file.html", page)
    (tmp_path / "taken").mkdir()
    with pytest.raises(EvalError, match="cannot write"):
        write_page(tmp_path / "taken", page)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "taken"]


def test_charts_survive_odd_curves():
    for points in (
        [],
        [(1, 2.0)],
        [(1, 2.0), (2, 2.0)],
        [(0, float("nan")), (1, float("inf")), (2, 3.0)],
        [(i, (-1) ** i * 1e-9) for i in range(5000)],
        [(1, 1e12), (2, -1e12)],
    ):
        drawn = svg(Chart("c", "x", "y", [Series("s", points, dots=len(points) < 5)]))
        Checked(drawn)
        assert "nan" not in drawn and "inf" not in drawn
        assert len(drawn) < 20_000
        training_charts(points, points[:2])


def test_smoothing_keeps_a_constant_and_the_length():
    assert smooth([(i, 2.0) for i in range(50)]) == [(i, 2.0) for i in range(50)]
    assert smooth([]) == []
