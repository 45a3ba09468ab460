"""Tux Paint's recipe on a package made here: leaks, kills, other releases, errors."""

import io
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from archive_files import archive_of, deb_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from kaldi_rules import problems

from speechadapt.audio import load_audio
from speechadapt.data import Utterance, read_data_dir
from speechadapt.errors import DataError, FetchError
from speechadapt_recipes.cli import main
from speechadapt_recipes.corpora import tuxpaint
from speechadapt_recipes.corpora.common import Clip, check_splits, other_release
from speechadapt_recipes.corpora.splits import (
    LARGEST_HELD_OUT,
    SPLITS,
    assign_splits,
    normalised,
)

NAME = "tuxpaint-stamps-default_2030.01.01-1_all.deb"
STAMPS = 70
ROOT = "usr/share/tuxpaint/stamps"


def ogg(seed, seconds):
    stream = io.BytesIO()
    rng = np.random.default_rng(seed)
    soundfile.write(stream, 0.1 * rng.standard_normal(int(22_050 * seconds)), 22_050, format="OGG")
    return stream.getvalue()


def package(extra=()):
    """A package of 70 pictures; every seventh has the text of the one before, in one language."""
    files = {}
    for number in [*range(STAMPS), *extra]:
        stamp = f"{ROOT}/{'animals' if number % 2 else 'town/cars'}/pic-{number}"
        be = f"Жаба {number}" if number % 7 else f"«ЖАБА {number - 1}»!"
        ro = f"O broască {number}." if number % 5 else "Două broaște."
        lines = [f"A frog {number}.", f"be.utf8={be}", "ca@valencia.utf8=x", f"ro.utf8={ro}"]
        if number % 11 == 0:
            lines.remove(f"ro.utf8={ro}")
        files[f"{stamp}.txt"] = "\n".join(lines).encode()
        files[f"{stamp}_desc_be.ogg"] = ogg(number, 0.4)
        files[f"{stamp}_desc_ro.ogg"] = ogg(number + 1000, 0.50031)
    town = f"{ROOT}/town/cars"
    files[f"{town}/pic-2.txt"] += ("\nbe.utf8=" + "Вельмі доўгі тэкст " * 9).encode()
    files[f"{town}/pic-4_desc_be.ogg"] = b""
    files[f"{town}/pic-6_desc_be.ogg"] = files[f"{town}/pic-6_desc_be.ogg"][:-700]
    files[f"{town}/pic-8_desc_be.ogg"] = b"no sound"
    files[f"{town}/pic-10_desc_be.ogg"] = ogg(7, 0.05)
    files[f"{town}/horn.ogg"] = ogg(8, 0.3)
    files[f"{ROOT}/symbols/math/1_be.ogg"] = ogg(9, 0.3)
    return deb_bytes(files)


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("debs")
    (folder / NAME).write_bytes(package())
    return folder


@pytest.fixture(scope="module")
def release(debs):
    return archive_of(debs / NAME, package="tuxpaint-stamps-default")


@pytest.fixture(scope="module")
def prepared(debs, release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    sizes = tuxpaint.prepare(folder, folder / "dl", ["be", "ro"], debs, 2, release)
    return folder, sizes


def sides(folder):
    """Which split every utterance is in."""
    return {u.id: split for split in SPLITS for u in read_data_dir(folder / split)}


def test_data_directories_are_complete_and_kaldi_accepts_them(prepared):
    folder, sizes = prepared
    for language in ("be", "ro"):
        for split in SPLITS:
            place = folder / language / split
            assert problems(place) == []
            assert {p.name for p in place.iterdir()} == {
                *("wav.scp", "text", "utt2spk", "spk2utt", "utt2lang", "utt2dur", "LICENCE")
            }
            assert "GPL-2" in (place / "LICENCE").read_text()
            assert "2030" not in (place / "LICENCE").read_text()  # the fixture's version is 1-1
            utterances = read_data_dir(place, require_text=True)
            assert {u.language for u in utterances} == {language}
            assert {u.speaker for u in utterances} == {f"tuxpaint_{language}"}
            for utterance in utterances:
                # To the millisecond: more digits would give other batches than RESULTS has.
                assert utterance.duration == round(len(load_audio(utterance.audio)) / 16_000, 3)
            size = sizes[language][split]
            assert size["clips"] == len(utterances)
            assert size["texts"] == len({normalised(u.text) for u in utterances})
        assert json.loads((folder / language / "splits.json").read_text()) == sizes[language]


def test_no_text_and_no_picture_is_on_two_sides(prepared):
    folder, _ = prepared
    by_picture, by_text = {}, {}
    for language in ("be", "ro"):
        for split in SPLITS:
            for utterance in read_data_dir(folder / language / split):
                picture = utterance.id.partition("-")[2]
                by_picture.setdefault(picture, set()).add(split)
                by_text.setdefault((language, normalised(utterance.text)), set()).add(split)
    assert len(by_text) < sum(len(sides(folder / language)) for language in ("be", "ro"))
    assert all(len(splits) == 1 for splits in [*by_picture.values(), *by_text.values()])


def test_what_cannot_be_used_is_listed_with_its_reason(prepared):
    folder, _ = prepared
    rows = (folder / "be/unusable.tsv").read_text(encoding="utf-8").splitlines()[1:]
    reasons = {row.split("\t")[0].rpartition("pic-")[2]: row.split("\t")[1] for row in rows}
    assert set(reasons) == {"2", "4", "6", "8", "10"}
    assert "ms per character" in reasons["2"]
    assert "is empty" in reasons["4"]
    assert "cut short" in reasons["6"] or "not readable" in reasons["6"]
    assert "not readable" in reasons["8"]
    assert "0.050 s" in reasons["10"]
    assert not any("horn" in name or "math" in name for name in sides(folder / "be"))


def test_one_language_alone_gets_the_same_splits(prepared, debs, release, tmp_path):
    folder, _ = prepared
    tuxpaint.prepare(tmp_path, folder / "dl", ["ro"], debs, 1, release)
    assert sides(tmp_path / "ro") == sides(folder / "ro")
    flac = "flac/ro/tuxpaint_ro-animals_pic-1.flac"
    assert (tmp_path / flac).read_bytes() == (folder / flac).read_bytes()


def test_another_release_moves_nothing_and_needs_another_folder(prepared, release, tmp_path):
    folder, _ = prepared
    other = tmp_path / NAME.replace("2030", "2031")
    other.write_bytes(package(extra=range(200, 206)))
    digest = archive_of(other).sha256
    newer = other_release(release, other.name, digest)
    assert newer.version == "2031.01.01-1"
    tuxpaint.prepare(tmp_path / "data", tmp_path / "dl", ["be"], tmp_path, 2, newer)
    before, after = sides(folder / "be"), sides(tmp_path / "data/be")
    assert len(after) == len(before) + 6
    assert before.items() <= after.items()
    with pytest.raises(DataError, match="holds another release"):
        tuxpaint.prepare(folder, tmp_path / "dl", ["be"], tmp_path, 2, newer)
    for name, sha256 in (
        ("other_1-1_all.deb", digest),
        ("tuxpaint-stamps-default.deb", digest),
        (other.name, "12"),
    ):
        with pytest.raises(FetchError):
            other_release(release, name, sha256)


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def command(*arguments):
    return [sys.executable, "-m", "speechadapt_recipes.cli", *map(str, arguments)]


def test_killed_at_any_moment_the_same_command_goes_on(prepared, debs, release, tmp_path):
    folder, _ = prepared
    expected = {
        name: content.replace(str(folder).encode(), str(tmp_path / "data").encode())
        for name, content in tree(folder).items()
        if not name.startswith("dl/")
    }
    line = command(
        *("tuxpaint", "--out", tmp_path / "data", "--downloads", tmp_path / "dl"),
        *("--archives", debs, "--languages", "be", "ro"),
        *("--archive", NAME, "--archive-sha256", release.sha256),
    )
    shutil.copytree(folder / "dl", tmp_path / "dl")
    licence = {name for name in expected if name.endswith("LICENCE")}
    rng = random.Random(0)
    for kill in range(4):
        process = subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        # From the first finished recording on, so that the kill hits the work and not the imports.
        wanted = (30 * kill + rng.randrange(20), time.monotonic() + 60)
        while process.poll() is None and time.monotonic() < wanted[1]:
            if len(list(tmp_path.glob("data/flac/*/*.flac"))) > wanted[0]:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name, content in tree(tmp_path / "data").items():
            if "/." not in f"/{name}" and name not in licence:
                assert content == expected[name], f"{name} is half-written"
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "be: train " in done.stdout
    found = tree(tmp_path / "data")
    assert found.keys() == expected.keys()
    assert all(found[name] == expected[name] for name in found if name not in licence)


def test_the_command_refuses_with_one_sentence(tmp_path, debs, capsys):
    def refused(*arguments):
        assert main([str(argument) for argument in arguments]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        return said

    places = ("--out", tmp_path / "data", "--downloads", tmp_path / "dl", "--archives", debs)
    assert "has no xx; it has be bg" in refused("tuxpaint", *places, "--languages", "be", "xx")
    assert f"has no {tuxpaint.RELEASES[0].name}" in refused("tuxpaint", *places)
    assert "both --archive" in refused("tuxpaint", *places, "--archive", NAME)
    said = refused("tuxpaint", *places, "--archive", NAME, "--archive-sha256", "0" * 64)
    assert "expected 0000" in said
    assert not (tmp_path / "data").exists()


def test_help_has_examples():
    done = subprocess.run(command("--help"), capture_output=True, text=True, check=True)
    assert "speechadapt-recipes tuxpaint --out data --languages be ro" in done.stdout


def clip(name, split, text, language="be"):
    return Clip(Utterance(f"s-{name}", "/x.flac", text=text, language=language), split)


def test_check_splits_names_a_leak():
    check_splits(
        [clip("a", "train", "Жаба"), clip("b", "test", "жаба!", "bg"), clip("c", "test", "")],
        tuxpaint.stamp_of,
    )
    with pytest.raises(DataError, match=r"train \(s-a\) and test \(s-b\).*'жаба'"):
        check_splits([clip("a", "train", "Жаба"), clip("b", "test", "«жаба!»")], tuxpaint.stamp_of)
    with pytest.raises(DataError, match="both have 'a'"):
        check_splits([clip("a", "dev", "x"), clip("a", "test", "y", "ro")], tuxpaint.stamp_of)


items = st.text("abcdefgh", min_size=1, max_size=3)
texts_of_items = st.lists(
    st.tuples(
        st.sampled_from(["be", "ro"]), st.sampled_from(["A b", "a, B!", "c", "D", "", "e f"])
    ),
    max_size=3,
)


@given(st.dictionaries(items, texts_of_items, max_size=30), st.randoms())
@settings(max_examples=80, deadline=None)
def test_splits_never_leak_and_do_not_depend_on_order(texts, rng):
    splits = assign_splits(texts)
    assert splits.keys() == texts.keys()
    seen = {}
    for item, pairs in texts.items():
        for language, text in pairs:
            if normalised(text):
                key = (language, normalised(text))
                assert seen.setdefault(key, splits[item]) == splits[item]
    order = list(texts)
    rng.shuffle(order)
    assert assign_splits({item: texts[item] for item in order}) == splits


def test_large_groups_train_and_shares_are_as_documented():
    same = {f"s{n}": [("be", "same")] for n in range(LARGEST_HELD_OUT + 1)}
    assert set(assign_splits(same).values()) == {"train"}
    splits = assign_splits({f"s{n}": [("be", f"t{n}")] for n in range(4000)})
    counts = {split: list(splits.values()).count(split) / 4000 for split in SPLITS}
    assert counts["test"] == pytest.approx(0.14, abs=0.02)
    assert counts["dev"] == pytest.approx(0.06, abs=0.02)


def test_at_least_one_job(debs, release, tmp_path):
    with pytest.raises(DataError, match="--nj 1"):
        tuxpaint.prepare(tmp_path / "data", tmp_path / "dl", ["be"], debs, 0, release)


def test_two_pictures_must_not_share_an_id(tmp_path):
    files = {}
    for stamp in ("a/b_c", "a_b/c"):
        files[f"{ROOT}/{stamp}.txt"] = f"x\nbe.utf8=тэкст {stamp}\n".encode()
        files[f"{ROOT}/{stamp}_desc_be.ogg"] = ogg(1, 0.3)
    path = tmp_path / NAME
    path.write_bytes(deb_bytes(files))
    clash = replace(archive_of(path), package="tuxpaint-stamps-default")
    with pytest.raises(DataError, match="same utterance id"):
        tuxpaint.prepare(tmp_path / "data", tmp_path / "dl", ["be"], tmp_path, 1, clash)


def test_this_process_left_no_partial_files(prepared):
    folder, _ = prepared
    left = [p for p in Path(folder).rglob(".*") if p.name != ".lock" and p.suffix != ".sha256"]
    assert left == []
    assert not list(folder.rglob("*.tmp"))
