"""The listening test's page: what is in the file, and a whole test taken in a real browser."""

import base64
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, Browser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError
from speechadapt_eval.cli.main import main
from speechadapt_eval.listening.page import read_sounds, render_test
from speechadapt_eval.listening.ratings import SCALES, read_ratings

ACR, MUSHRA = SCALES["acr"], SCALES["mushra"]
EVIL = '</script><script>alert(1)</script>, "q"'
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


class Page(HTMLParser):
    """Tags, attributes and the texts of scripts; every element must be closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.scripts, self.text = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] == "script" else self.text).append(data)


def tone(path, hertz, seconds=0.2):
    soundfile.write(path, 0.1 * np.sin(np.arange(int(16_000 * seconds)) * hertz / 2546), 16_000)


@pytest.fixture
def folder(tmp_path):
    lines = ["clip,system,audio,kind,expected"]
    for clip in range(3):
        for system in ("base", "good"):
            tone(tmp_path / f"{clip}{system}.wav", 200 + 100 * clip + 5 * len(system + "x" * clip))
            lines.append(f"c{clip},{system},{clip}{system}.wav,,")
    tone(tmp_path / "g.flac", 500)
    tone(tmp_path / "t.ogg", 700)
    lines += ["g,,g.flac,gold,5", "t,,t.ogg,trap,2"]
    (tmp_path / "acr.csv").write_text("\n".join(lines) + "\n")
    lines = [lines[0]]
    for clip in range(2):
        for system, kind in (("orig", "ref"), ("low", "anchor"), ("base", ""), ("good", "")):
            hertz = 250 + 90 * clip + 30 * len(system + kind)
            tone(tmp_path / f"m{clip}{system}.wav", hertz, 0.5 if kind == "ref" else 0.2)
            lines.append(f'"c{clip}, long",{system},m{clip}{system}.wav,{kind},')
    (tmp_path / "mushra.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def make(folder, scale="acr"):
    page = folder / f"{scale}.html"
    assert main(["listening-page", "--scale", scale, str(folder / f"{scale}.csv"), str(page)]) == 0
    return page


def test_all_is_in_one_file(folder, capsys):
    page = make(folder)
    out = capsys.readouterr().out
    assert "8 sounds, 5 clips, 2 systems" in out
    html = page.read_text(encoding="utf-8")
    parsed = Page(html)
    assert not {"link", "img", "iframe", "object", "audio"} & set(parsed.tags)
    names = {name for name, _ in parsed.attributes}
    assert not {"src", "href", "onclick"} & names
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|WebSocket|eval\(", html)
    assert ("content", "default-src 'none'; media-src blob:; script-src 'unsafe-inline'; "
            "style-src 'unsafe-inline'") in parsed.attributes  # fmt: skip
    data = json.loads(parsed.scripts[0])
    sounds = read_sounds(folder / "acr.csv", ACR)
    assert [(s["clip"], s["system"], s["kind"], s["expected"]) for s in data["sounds"]] == [
        (s.clip, s.system, s.kind, s.expected) for s in sounds
    ]
    for row, sound in zip(data["sounds"], sounds, strict=True):
        assert base64.b64decode(data["audio"][row["audio"]]) == sound.audio
    assert {s.type for s in sounds} == {"audio/wav", "audio/flac", "audio/ogg"}
    ids = re.findall(r'\$\("(\w+)"\)', parsed.scripts[1])
    assert set(ids) <= {value for name, value in parsed.attributes if name == "id"} and ids
    labelled = {value for name, value in parsed.attributes if name == "for"}
    assert labelled == {"rater", "text"}


def test_texts_can_do_no_harm(folder):
    (folder / "evil.csv").write_text(
        f'clip,system,audio\n"{EVIL.replace(chr(34), chr(34) * 2)}",s,0base.wav\n'
    )
    sounds = read_sounds(folder / "evil.csv", ACR)
    html = render_test(sounds, ACR, title=EVIL, intro=f"one {EVIL}\n\ntwo", question=EVIL)
    parsed = Page(html)
    assert parsed.tags.count("script") == 2 and parsed.tags.count("p") >= 3
    data = json.loads(parsed.scripts[0])
    assert data["sounds"][0]["clip"] == data["question"] == EVIL
    assert EVIL in "".join(parsed.text)


def test_the_same_sounds_are_the_same_test(folder):
    sounds = read_sounds(folder / "acr.csv", ACR)
    one, again, less = (
        json.loads(Page(render_test(part, ACR, title=title)).scripts[0])["test"]
        for part, title in ((sounds, "a"), (sounds, "b"), (sounds[1:], "a"))
    )
    assert one == again != less


def test_sounds_that_are_the_same_are_stored_once(folder):
    lines = "clip,system,audio,kind\na,r,0base.wav,ref\na,s,0base.wav,\n"
    (folder / "twice.csv").write_text(lines)
    page = render_test(read_sounds(folder / "twice.csv", MUSHRA), MUSHRA, title="t")
    assert len(json.loads(Page(page).scripts[0])["audio"]) == 1


@pytest.mark.parametrize(
    ("scale", "lines", "message"),
    [
        ("acr", "a,s,nothing.wav,,", ":2: cannot read the sound"),
        ("acr", "a,s,acr.csv,,", ":2: cannot read the sound"),
        ("acr", "a,s,odd.au,,", "is AU, which browsers do not play"),
        ("acr", "a,s,empty.wav,,", "has no sound in it"),
        ("acr", "a,s,0base.wav,tset,", ":2: unknown kind 'tset'"),
        ("acr", "a,,0base.wav,,", ":2: no system"),
        ("acr", "a,s,,,", ":2: no audio"),
        ("acr", "a,s,0base.wav,gold,", "needs an expected score"),
        ("acr", "a,s,0base.wav,gold,6", "expected '6' is not a whole number from 1 to 5"),
        ("acr", "a,s,0base.wav,,\na,s,0good.wav,,", ":3: 'a' of 's' again, see"),
        ("acr", "a,s,0base.wav,trap,1", "no sound to rate, only gold clips and traps"),
        ("mushra", "a,s,0base.wav,,", "clip 'a' has 0 sounds of kind ref"),
        ("mushra", "a,r,0base.wav,ref,\n" + "\n".join(f"a,s{i},0good.wav,," for i in range(9)),
         "clip 'a' has 10 versions"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(folder, capsys, scale, lines, message):
    tone(folder / "odd.au", 300)
    soundfile.write(folder / "empty.wav", np.zeros(0), 16_000)
    (folder / "bad.csv").write_text(f"clip,system,audio,kind,expected\n{lines}\n")
    table, page = str(folder / "bad.csv"), folder / "bad.html"
    assert main(["listening-page", "--scale", scale, table, str(page)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and table in err and err.count("\n") == 1
    assert not page.exists()


@pytest.mark.parametrize(("name", "kind", "type_"), [
    ("a.wav", "WAVEX", "audio/wav"), ("a.mp3", "MP3", "audio/mpeg"), ("a.opus", "OGG", "audio/ogg"),
])  # fmt: skip
def test_formats(folder, name, kind, type_):
    subtype = "OPUS" if name.endswith("opus") else None
    soundfile.write(folder / name, np.zeros(16_000), 16_000, format=kind, subtype=subtype)
    (folder / "one.csv").write_text(f"clip,system,audio\na,s,{name}\n")
    sound = read_sounds(folder / "one.csv", ACR)[0]
    assert sound.type == type_ and 0.99 < sound.seconds < 1.2


def test_too_much_for_a_page(folder, monkeypatch):
    monkeypatch.setattr("speechadapt_eval.listening.page.MOST_BYTES", 10_000)
    with pytest.raises(EvalError, match=r":3: more than 0 MB of sound"):
        read_sounds(folder / "acr.csv", ACR)


def downloaded(browser, folder, name):
    browser.tap("#download")
    browser.wait(f"document.querySelector('#download').download === {name!r}")
    path = folder / name
    for _ in range(200):
        if path.exists() and path.read_text():
            break
        browser.ask("new Promise(done => setTimeout(done, 25))")
    assert path.read_text() == browser.ask("document.querySelector('#text').value")
    return path


@needs_browser
def test_acr_on_a_phone(folder):
    """Taps only, with a reload in the middle; the file that comes out is what ``ratings`` reads."""
    page = make(folder)
    with Browser(folder) as browser:
        browser.open(page, "?rater=Ana%2C%20%22A%22")
        assert browser.ask("document.querySelector('#rater').value") == 'Ana, "A"'
        browser.tap("#who button")
        for screen in range(8):
            if screen == 3:  # closed and opened again
                browser.open(page)
                assert browser.ask("document.querySelector('#rater').value") == 'Ana, "A"'
                browser.tap("#who button")
            browser.wait(f"document.querySelector('#count').textContent === '{screen + 1} of 8'")
            assert browser.ask("document.querySelector('[name=score]').disabled")
            assert browser.ask("document.querySelector('.next button').disabled")
            browser.tap(".player button")
            browser.wait("!document.querySelector('[name=score]').disabled")
            assert browser.ask("document.querySelector('.next button').disabled")
            browser.tap(f"[name=score][value='{1 + screen % 5}']")
            assert browser.ask("document.documentElement.scrollWidth") <= 390
            browser.tap(".next button")
        browser.wait("!document.querySelector('#end').hidden")
        path = downloaded(browser, folder, "ratings_Ana_A_.csv")
        assert browser.errors() == []
        browser.open(page, "?rater=Bo")
        browser.tap("#who button")
        order_of_bo = browser.ask("document.querySelector('#count').textContent")
        assert order_of_bo == "1 of 8"  # another rater begins at the beginning
    ratings = read_ratings([path], ACR)
    sounds = read_sounds(folder / "acr.csv", ACR)
    assert {r.rater for r in ratings} == {'Ana, "A"'} and len({r.session for r in ratings}) == 1
    assert [r.score for r in ratings] == [1 + screen % 5 for screen in range(8)]
    asked = sorted((r.clip, r.system, r.kind, r.expected or 0) for r in ratings)
    assert asked == sorted((s.clip, s.system, s.kind, s.expected or 0) for s in sounds)
    assert all(a.clip != b.clip for a, b in pairwise(ratings[:-2]))


@needs_browser
def test_mushra_by_keys(folder):
    page = make(folder, "mushra")
    with Browser(folder, 1200, 800, phone=False) as browser:
        browser.open(page)
        browser.tap("#rater")
        browser.write("r1")
        browser.press("Enter")
        for screen in range(2):
            browser.wait(f"document.querySelector('#count').textContent === '{screen + 1} of 2'")
            browser.press("0")  # the reference
            browser.wait("document.querySelector('.sounds li').className === 'playing'")
            browser.wait("document.querySelector('.sounds li').className === ''")
            for sound in range(1, 5):
                browser.press(str(sound))
                slider = f"document.querySelectorAll('[type=range]')[{sound - 1}]"
                browser.wait(f"!{slider}.disabled")
                browser.press("Enter")  # too early
                for _ in range(sound):
                    browser.press("ArrowRight")
                assert browser.ask(f"{slider}.value") == str(50 + sound)
            browser.press("Enter")
        browser.wait("!document.querySelector('#end').hidden")
        path = downloaded(browser, folder, "ratings_r1.csv")
        assert browser.errors() == []
    ratings = read_ratings([path], MUSHRA)
    assert [r.score for r in ratings] == [51, 52, 53, 54] * 2
    assert {r.clip for r in ratings} == {"c0, long", "c1, long"}
    assert sorted(r.kind for r in ratings[:4]) == ["anchor", "ref", "test", "test"]


@needs_browser
def test_orders_differ_between_raters_and_not_between_visits(folder):
    for number, path in enumerate(sorted(folder.glob("m*.wav"))):
        tone(path, 300, 0.2 + number / 100)  # the size tells them apart
    page = make(folder, "mushra")
    orders = {}
    with Browser(folder) as browser:
        for rater in "aabcd":
            browser.open(page, f"?rater={rater}")
            browser.ask(
                "localStorage.clear(); window.sizes = []; const made = URL.createObjectURL;"
                "URL.createObjectURL = (blob) => { sizes.push(blob.size); return made(blob) }; 0"
            )
            browser.tap("#who button")
            order = tuple(browser.ask("sizes"))
            assert len(order) == 4 and orders.setdefault(rater, order) == order
            shown = browser.ask("document.body.innerText")
            assert not [name for name in ("orig", "low", "base", "c0", "c1") if name in shown]
    assert len(set(orders.values())) > 1


@settings(deadline=None)
@given(st.binary(max_size=60))
@example(b"a,s,0\0.wav,,\n")
@example(b"a,s,.,,\n")
def test_no_bytes_make_the_reader_crash(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("s") / "s.csv"
    path.write_bytes(b"clip,system,audio,kind,expected\n" + data)
    with pytest.raises(EvalError, match=re.escape(str(path))):
        read_sounds(path, ACR)
