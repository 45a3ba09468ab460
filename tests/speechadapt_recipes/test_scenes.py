"""Scenes: speech and sounds alone and in noise, with every label that is true."""

import json
from collections import Counter

import numpy as np
import pytest
from kaldi_rules import problems
from noisy_clips import write_sounds

from speechadapt.audio import load_audio
from speechadapt.data import read_data_dir, write_data_dir
from speechadapt.errors import DataError
from speechadapt_recipes.bases import scenes
from speechadapt_recipes.bases.categories import read_categories
from speechadapt_recipes.corpora.splits import SPLITS


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Two languages, noise with effects, music: as the other recipes write them."""
    folder = tmp_path_factory.mktemp("corpora")
    for language in ("be", "ro"):
        for split in SPLITS:
            names = [f"spk_{language}-{split}{n}" for n in range(12)]
            utterances = write_sounds(
                folder, names, 0.3, language=language, speaker=f"spk_{language}"
            )
            write_data_dir(folder / language / split, utterances, {"LICENCE": "free\n"})
    kinds = [f"noise-{kind}-{n}" for kind in ("white", "pink", "brown", "hum") for n in range(4)]
    effects = [f"effect-bird{n}" for n in range(6)] + [f"effect-tool{n}" for n in range(4)]
    for split in ("train", "test"):
        chosen = write_sounds(folder / "noise", [f"{name}-{split}" for name in (*kinds, *effects)])
        classes = "".join(f"{u.id} {class_of(u.id)}\n" for u in sorted(chosen, key=lambda u: u.id))
        write_data_dir(folder / "noise" / split, chosen, {"utt2class": classes})
        pieces = write_sounds(folder / "music", [f"music-{n}-{split}" for n in range(3)])
        classes = "".join(f"{u.id} music\n" for u in pieces)
        write_data_dir(folder / "music" / split, pieces, {"utt2class": classes})
    return folder


def class_of(name):
    if name.startswith("noise"):
        return name.split("-")[1]
    return "animals/birds" if "bird" in name else "household/tools"


@pytest.fixture(scope="module")
def clips(corpora, tmp_path_factory):
    """The clips made of them."""
    folder = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "SCENES_ALONE", {"train": 3, "dev": 2, "test": 2})
        patch.setattr(scenes, "VERSIONS", {"train": 3, "dev": 2, "test": 2})
        patch.setattr(scenes, "SECONDS", 0.4)
        speech = [corpora / "be", corpora / "ro"]
        counts = scenes.prepare(folder, speech, corpora / "noise", corpora / "music", 1)
    return folder, counts


def test_scenes_have_every_label_that_is_true(clips):
    folder, counts = clips
    for split in SPLITS:
        place = folder / split
        assert problems(place) == []
        labels = read_categories(place)
        assert counts[split] == Counter(label for mine in labels.values() for label in mine)
        assert counts[split]["lang:be"] >= 12
        assert {"sound:bird", "sound:household", "scene:babble", "scene:music"} <= set(
            counts[split]
        )
        for utterance in read_data_dir(place):
            mine = labels[utterance.id]
            wave = load_audio(utterance.audio, utterance.start, utterance.end)
            assert 0 < len(wave) <= 0.4 * 16_000 and np.abs(wave).max() > 1e-3
            assert utterance.id.startswith("spk_be-") == ("lang:be" in mine)
            spoken = utterance.id.startswith("spk_")
            assert not spoken or (len(mine) == 2) == (utterance.id.count("-") == 2)
        assert json.loads((folder / "labels.json").read_text())[split] == counts[split]


def test_sounds_and_noise_are_on_one_side_as_whole_files(corpora):
    seen = {}
    for split in SPLITS:
        material = scenes._material(split, [corpora / "be"], corpora / "noise", corpora / "music")
        assert set(material.scenes) == {"white", "pink", "brown", "hum", "music"}
        assert set(material.sounds) == {"bird", "household"}
        for files in [*material.scenes.values(), *material.sounds.values()]:
            assert files
            for utterance in files:
                assert seen.setdefault(utterance.id, split) == split
    assert len(seen) == 2 * (16 + 10 + 3)


def test_a_mixture_is_a_function_of_its_name(corpora):
    material = scenes._material("train", [corpora / "be", corpora / "ro"], corpora / "noise",
                                corpora / "music")  # fmt: skip
    front = material.speech[0]
    alone = load_audio(front.audio)
    for scene in scenes.SCENES:
        mixture = scenes.Mixture("x", (), front, scene)
        wave = scenes.render(mixture, material)
        assert np.array_equal(wave, scenes.render(mixture, material))
        assert not np.array_equal(
            wave, scenes.render(scenes.Mixture("y", (), front, scene), material)
        )
        assert len(wave) == len(alone)
    with pytest.raises(DataError, match="other speakers"):
        scenes.render(
            scenes.Mixture("x", (), front, "babble"),
            scenes.Material([front], {}, {}),
        )
