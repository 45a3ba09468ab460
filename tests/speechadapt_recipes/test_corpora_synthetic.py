"""Synthetic speech: what espeak-ng's library is asked for, and texts that nobody holds out."""

import ctypes
import gzip

import numpy as np
import pytest
from kaldi_rules import problems

from speechadapt.data import read_data_dir
from speechadapt.errors import AudioError, DataError
from speechadapt_recipes.corpora import asterisk, synthetic, tuxpaint
from speechadapt_recipes.corpora.espeak import ARCHIVE, VOICES, Speaker, load_speaker
from speechadapt_recipes.corpora.splits import normalised

RATE = 22_050


class Library:
    """Stands where espeak-ng's library does: hums a twenty-fifth of a second for each byte."""

    def __init__(self, rate=RATE):
        self.rate, self.said = rate, []

    def espeak_Initialize(self, *_):
        return self.rate

    def espeak_SetSynthCallback(self, callback):
        self.callback = callback

    def espeak_SetVoiceByName(self, name):
        self.voice = name.decode()
        return 0 if self.voice.split("+")[0] != "xx" else 2

    def espeak_SetParameter(self, *_):
        return 0

    def espeak_Synth(self, text, size, *_):
        self.said.append((self.voice, text.decode()))
        for _ in range(size - 1):  # in pieces, as the real one
            wave = (3000 * np.sin(np.arange(RATE // 25))).astype(np.int16)
            pointer = wave.ctypes.data_as(ctypes.POINTER(ctypes.c_short))
            self.callback(pointer, len(wave), None)
        self.callback(None, 0, None)
        return 0


def test_what_the_library_says_is_put_together(tmp_path):
    speaker = Speaker(Library(), tmp_path)
    wave = speaker.say("Жаба", "be", "f1", 150, 50)
    assert wave.dtype == np.float32 and abs(len(wave) - 8 * 640) < 20
    assert np.abs(wave).max() == pytest.approx(3000 / 32768, rel=0.2)
    assert np.array_equal(wave, speaker.say("Жаба", "be", "f1", 150, 50))
    with pytest.raises(AudioError, match=r"cannot say 'a' with the voice xx\+f1"):
        speaker.say("a", "xx", "f1", 150, 50)
    with pytest.raises(AudioError, match="cannot say ''"):
        speaker.say("", "be", "f1", 150, 50)
    with pytest.raises(AudioError, match="cannot read its voices"):
        Speaker(Library(rate=-1), tmp_path)


def test_a_library_that_does_not_load_is_named(tmp_path):
    folder = tmp_path / f"espeakng_loader-{ARCHIVE.version}" / "espeakng_loader"
    folder.mkdir(parents=True)
    (folder / "libespeak-ng.so").write_bytes(b"no library")
    with pytest.raises(AudioError, match=r"libespeak-ng\.so: does not load.*x86-64"):
        load_speaker(tmp_path)


@pytest.fixture
def texts(tmp_path):
    """Unpacked packages with the texts of forty pictures and forty prompts."""
    package = tuxpaint.RELEASES[0].name.removesuffix(".deb")
    stamps = tmp_path / package / "usr/share/tuxpaint/stamps/animals"
    stamps.mkdir(parents=True)
    for number in range(40):
        lines = [f"Frog {number}.", f"ro.utf8=Broasca {number}", f"it.utf8=Rana {number}"]
        (stamps / f"pic{number:02}.txt").write_text("\n".join(lines))
    (stamps / "long.txt").write_text("A " + "very " * 60 + "long frog")
    for language in asterisk.LANGUAGES:
        name = f"asterisk-core-sounds-{language}"
        folder = tmp_path / f"{name}_{asterisk.VERSION}_all" / f"usr/share/doc/{name}"
        folder.mkdir(parents=True)
        # Every tenth prompt is the text of a picture in another language.
        lines = [
            f"key{n}: {f'Broasca {n}' if n % 10 == 0 else f'{language} prompt {n}'}"
            for n in range(40)
        ]
        listing = gzip.compress("\n".join([*lines, "beep: [beep]"]).encode())
        (folder / f"core-sounds-{language}.txt.gz").write_bytes(listing)
    return tmp_path


def test_held_out_texts_are_never_spoken(texts):
    free = synthetic.free_texts(texts)
    stamps = tuxpaint.read_texts(tuxpaint.stamps_folder(texts), synthetic.LANGUAGES)
    pictures = tuxpaint.split_stamps(tuxpaint.read_texts(tuxpaint.stamps_folder(texts)))
    prompts = asterisk.all_texts(texts)
    keys = asterisk.split_keys(prompts)
    held_out = {
        normalised(text)
        for items, splits in ((stamps, pictures), (transposed(prompts), keys))
        for item, lines in items.items()
        for text in lines.values()
        if splits[item] != "train"
    }
    assert len(held_out) > 10
    spoken = {normalised(text) for lines in free.values() for text in lines}
    assert not spoken & held_out
    assert {"rana 1", "it prompt 1", "frog 2"} - held_out <= spoken
    assert not any("very" in text or "beep" in text for text in spoken)
    assert all(len(set(map(normalised, lines))) == len(lines) for lines in free.values())
    assert free["be"] == [] and set(free) == set(synthetic.LANGUAGES)


def transposed(prompts):
    keys = {key for lines in prompts.values() for key in lines}
    return {key: {name: lines[key] for name, lines in prompts.items()} for key in keys}


def test_synthetic_speech_is_training_data_with_a_label(texts, tmp_path):
    library = Library()
    speaker = Speaker(library, tmp_path)
    sizes = synthetic.prepare(tmp_path / "data", texts, ["it"], speaker=speaker)
    place = tmp_path / "data/it/train"
    assert problems(place) == []
    assert [p.name for p in (tmp_path / "data/it").iterdir() if p.is_dir()] == ["train"]
    utterances = read_data_dir(place, require_text=True)
    assert (
        len(utterances) == sizes["it"]["train"]["clips"] == len(synthetic.free_texts(texts)["it"])
    )
    for utterance in utterances:
        assert utterance.language == "it" and utterance.speaker.startswith("espeak_it_")
        assert (f"it+{utterance.speaker.rpartition('_')[2]}", utterance.text) in library.said
    assert len({u.speaker for u in utterances}) > len(VOICES) // 2
    labels = (place / "utt2class").read_text().split()[1::2]
    assert set(labels) == {"synthetic"}
    assert "Synthetic speech of espeak-ng" in (place / "LICENCE").read_text()
    said = len(library.said)
    synthetic.prepare(tmp_path / "data", texts, ["it"], speaker=speaker)
    assert len(library.said) == said  # what is there is kept
    with pytest.raises(DataError, match="synthetic speech has no xx"):
        synthetic.prepare(tmp_path / "data", texts, ["xx"], speaker=speaker)
