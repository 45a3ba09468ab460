"""Asterisk prompts, music on hold, noise, from packages made here; recordings through channels."""

import gzip
import io
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from archive_files import archive_of, deb_bytes
from kaldi_rules import problems

from speechadapt.audio import load_audio
from speechadapt.data import read_data_dir
from speechadapt.errors import AudioError, DataError
from speechadapt_recipes.cli import main
from speechadapt_recipes.corpora import asterisk, music, noise, tuxpaint
from speechadapt_recipes.corpora.channels import CHANNELS
from speechadapt_recipes.corpora.g722 import check_decoder, decode_g722
from speechadapt_recipes.corpora.splits import SPLITS, normalised


def wav(seed, seconds, rate=8_000):
    stream = io.BytesIO()
    rng = np.random.default_rng(seed)
    soundfile.write(stream, 0.1 * rng.standard_normal(int(rate * seconds)), rate, format="WAV")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Activated.", "Activated."),
        ("dial  6 0 0", "dial 6 0 0"),
        ("[ascending tones]", ""),
        ("(1 second of silence)", ""),
        ("<beep ascending>", ""),
        ("at [@]", "at"),
        ("[!] punto esclamativo", "punto esclamativo"),
        ("Spiacente, [quello] non è valido", None),
        ("IAX (note: does not say 2)", None),
        ("", None),
    ],
)
def test_what_is_spoken(text, expected):
    assert asterisk.spoken(text) == expected


def test_listings_are_read_with_their_oddities(tmp_path):
    path = tmp_path / "core.txt.gz"
    lines = "\ufeff; Comment: yes\n\ndigits/1: uno\n bad line\nat: è: sì\nempty:\ndigits/1: due\n"
    path.write_bytes(gzip.compress(lines.encode()))
    assert asterisk.read_texts(path) == {"digits/1": "uno", "at": "è: sì", "empty": ""}


WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def prompts():
    texts = {f"digits/{n}": f"number {WORDS[n % 10]} {WORDS[n // 10]}" for n in range(80)}
    texts |= {"again/1": "Number zero, one!", "beep": "[a beep]", "silence/1": "(1 second)"}
    return texts | {"maybe": "hello (softly)", "dash": "dash [-]"}


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """As much of ffmpeg as is asked for here: every byte of the input becomes two samples."""
    cat, wc = shutil.which("cat"), shutil.which("wc")
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "ffmpeg"
    script.write_text(
        "#!/bin/sh\n"
        'case "$*" in *"-f g722 -i "*" -f s16le -ac 1 -ar 16000 -") ;; *) exit 9 ;; esac\n'
        'while [ "$1" != -i ]; do shift; done\n'
        f'[ $({wc} -c < "$2") -gt 9 ] || {{ echo "Invalid data found" >&2; exit 1; }}\n'
        f'exec {cat} "$2" "$2" "$2" "$2"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_asterisk(tmp_path, monkeypatch, ffmpeg):
    debs = tmp_path / "debs"
    debs.mkdir()
    archives = {}
    for language in asterisk.LANGUAGES:
        package = f"asterisk-core-sounds-{language}"
        texts = "".join(f"{key}: {text}\n" for key, text in prompts().items())
        listing = gzip.compress(f"; Prompts\n{texts}".encode(), mtime=0)
        files = {f"usr/share/doc/{package}/core-sounds-{language}.txt.gz": listing}
        sounds = {
            f"usr/share/asterisk/sounds/xx_X_f_Voice/{key}.g722": bytes([len(key)]) * 8_000
            for key in [*prompts(), "no-text"]
        }
        sounds["usr/share/asterisk/sounds/xx_X_f_Voice/digits/7.g722"] = b"bad"
        found = []
        for name, content in ((f"{package}-g722", sounds), (package, files)):
            path = debs / f"{name}_1-1_all.deb"
            path.write_bytes(deb_bytes(content))
            found.append(archive_of(path, package=name))
        archives[language] = tuple(found)
    monkeypatch.setattr(asterisk, "archives_of", archives.__getitem__)
    sizes = asterisk.prepare(tmp_path / "data", tmp_path / "dl", ["en", "ru"], debs)
    sides = {}
    for language in ("en", "ru"):
        for split in (*SPLITS, asterisk.NONSPEECH):
            place = tmp_path / "data" / language / split
            assert problems(place) == []
            for utterance in read_data_dir(place):
                sides.setdefault(utterance.id.partition("-")[2], set()).add(split)
                assert (utterance.text == "") == (split == asterisk.NONSPEECH)
                assert len(load_audio(utterance.audio)) == 16_000
        reasons = (tmp_path / "data" / language / "unusable.tsv").read_text().splitlines()[1:]
        assert len(reasons) == 3
        assert "remark in brackets" in reasons[1] and "no text" in reasons[2]
        assert "digits_7\t7.g722: ffmpeg cannot decode it (Invalid data found)" in reasons[0]
    assert all(len(found) == 1 for found in sides.values())
    assert sides["digits_10"] == sides["again_1"]  # "number zero one" twice
    assert sides["beep"] == sides["silence_1"] == {asterisk.NONSPEECH}
    assert sizes["en"] == sizes["ru"]
    assert sizes["en"]["nonspeech"] == {"clips": 2, "texts": 0, "minutes": 0.0}
    assert normalised("Number zero, one!") == "number zero one"


def test_asterisk_needs_a_decoder_and_a_known_language(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="has no be; it has en es fr it ru"):
        asterisk.prepare(tmp_path, tmp_path, ["be"])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "av", None)  # not installed
    with pytest.raises(AudioError, match=r"need ffmpeg.*apt install ffmpeg.*pip install av"):
        check_decoder()
    with pytest.raises(AudioError, match="missing or empty"):
        decode_g722(str(tmp_path / "nix.g722"))


def test_music_keeps_pieces_and_artists_apart(tmp_path, monkeypatch):
    names = ["macroform-a", "macroform-b", "manolo_camp-c", "reno_project-d"]
    files = {
        f"usr/share/asterisk/moh/{name}.wav": wav(seed, 1.0) for seed, name in enumerate(names)
    }
    path = tmp_path / music.ARCHIVE.name
    path.write_bytes(deb_bytes(files))
    monkeypatch.setattr(music, "ARCHIVE", replace(music.ARCHIVE, sha256=archive_of(path).sha256))
    sizes = music.prepare(tmp_path / "data", tmp_path / "dl", tmp_path)
    assert sizes["train"]["clips"] == sizes["test"]["clips"] == 2
    for split, expected in (("train", names[:2]), ("test", names[2:])):
        place = tmp_path / "data" / split
        assert problems(place) == []
        assert [u.id for u in read_data_dir(place)] == [f"music-{name}" for name in expected]
        assert "CC-BY-SA-3.0: music of macroform, manolo_camp" in (place / "LICENCE").read_text()
        assert len(load_audio(read_data_dir(place)[0].audio)) == 16_000
        assert (place / "utt2class").read_text().split()[1::2] == ["music", "music"]


def slope(wave):
    """Decibels by which the power falls from one octave to the next, 100 to 6400 Hz."""
    power = np.abs(np.fft.rfft(wave.astype(np.float64))) ** 2
    frequency = np.fft.rfftfreq(len(wave), 1 / 16_000)
    edges = 100 * 2.0 ** np.arange(7)
    bands = [power[(frequency >= low) & (frequency < 2 * low)].mean() for low in edges[:-1]]
    return np.polyfit(np.arange(6), 10 * np.log10(bands), 1)[0]


@pytest.mark.parametrize(("kind", "fall"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_generated_noise_has_its_colour(kind, fall):
    wave = noise.generate(f"noise-{kind}-000")
    assert wave.dtype == np.float32 and len(wave) == 30 * 16_000
    assert slope(wave) == pytest.approx(fall, abs=0.2)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(noise.LOUDNESS, rel=0.01)
    assert np.array_equal(wave, noise.generate(f"noise-{kind}-000"))
    other = noise.generate(f"noise-{kind}-001")
    assert abs(np.corrcoef(wave, other)[0, 1]) < 0.1


def test_hum_is_mains_and_its_harmonics():
    power = np.abs(np.fft.rfft(noise.generate("noise-hum-000"))) ** 2
    frequency = np.fft.rfftfreq(30 * 16_000, 1 / 16_000)
    strongest = frequency[np.argmax(power)]
    base = min((50.0, 60.0), key=lambda mains: abs(strongest / mains - round(strongest / mains)))
    near = np.abs(frequency / base - np.round(frequency / base)) < 0.1
    assert power[near].sum() > 0.99 * power.sum()


@pytest.mark.parametrize("name", ["noise-green-000", "white", ""])
def test_no_such_noise(name):
    with pytest.raises(DataError, match="white, pink, brown, hum"):
        noise.generate(name)


def test_noise_with_sound_effects(tmp_path, monkeypatch):
    root = "usr/share/tuxpaint/stamps"
    effects = {f"{root}/animals/birds/bird{n}.ogg": wav(n, 0.3) for n in range(12)}
    effects[f"{root}/animals/birds/copy.wav"] = effects[f"{root}/animals/birds/bird3.ogg"]
    speech = (
        "animals/birds/bird1_desc_be.ogg",
        "symbols/math/1.ogg",
        "town/a_pt_BR.ogg",
        "b_ja.wav",
    )
    path = tmp_path / tuxpaint.RELEASES[0].name
    path.write_bytes(deb_bytes(effects | {f"{root}/{name}": wav(99, 0.3) for name in speech}))
    release = archive_of(path, package="tuxpaint-stamps-default")
    monkeypatch.setattr(tuxpaint, "RELEASES", (release,))
    monkeypatch.setattr(tuxpaint.stamps_folder, "__defaults__", (None, release))
    monkeypatch.setattr(noise, "SECONDS", 0.5)
    sizes = noise.prepare(tmp_path / "data", tmp_path / "dl", tmp_path)
    sides = {}
    for split, count in noise.COUNTS.items():
        place = tmp_path / "data" / split
        assert problems(place) == []
        classes = dict(line.split() for line in (place / "utt2class").read_text().splitlines())
        assert list(classes.values()).count("pink") == count
        for utterance in read_data_dir(place):
            sides[utterance.id] = split
            assert utterance.text is None
            if utterance.id.startswith("effect-"):
                assert classes[utterance.id] == "animals/birds"
    found = {name for name in sides if name.startswith("effect-")}
    assert found == {
        f"effect-animals_birds_{n}" for n in ["copy", *(f"bird{i}" for i in range(12))]
    }
    assert sides["effect-animals_birds_copy"] == sides["effect-animals_birds_bird3"]
    assert sum(size["clips"] for size in sizes.values()) == 48 + 13


def test_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(noise, "SECONDS", 0.5)
    places = ["--downloads", str(tmp_path / "dl"), "--archives", str(tmp_path)]
    out = ["--out", str(tmp_path / "noise")]
    assert main(["noise", *out, *places, "--generated-only", "--nj", "1"]) == 0
    assert capsys.readouterr().out == "noise: train 32 clips (0.3 min), test 16 clips (0.1 min)\n"
    assert main(["noise", *out, *places, "--generated-only", "--nj", "0"]) == 2
    assert main(["music", *out, *places]) == 2
    assert music.ARCHIVE.name in capsys.readouterr().err
    assert main(["asterisk", *out, *places, "--languages", "xx"]) == 2
    assert not shutil.rmtree(tmp_path / "noise")


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_channels_keep_length_and_loudness(name):
    rng = np.random.default_rng(0)
    wave = (0.2 * rng.standard_normal(9_001) * np.hanning(9_001)).astype(np.float32)
    through = CHANNELS[name](wave, np.random.default_rng(1))
    assert through.dtype == np.float32 and len(through) == len(wave)
    assert np.abs(through).max() <= 1.0
    assert np.array_equal(through, CHANNELS[name](wave, np.random.default_rng(1)))
    assert (name == "clean") == np.array_equal(through, wave)
    power = np.abs(np.fft.rfft(through)) ** 2
    frequency = np.fft.rfftfreq(len(through), 1 / 16_000)
    above = power[frequency > 4_200].sum() / power.sum()
    assert (above < 0.01) == (name in ("muffled", "telephone"))
