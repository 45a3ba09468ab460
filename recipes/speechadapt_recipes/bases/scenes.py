"""Clips of at most five seconds for the small AST base, with every label that is true of them.

- ``lang:be``: Belarusian is spoken. Every utterance is there as it is, and every second one (by a
  hash) once more under a scene, with both labels.
- ``sound:bird``: a sound effect of Tux Paint; its class is the folder it comes from
  (:data:`SOUND_CLASSES`). There are about a hundred: training has several versions of each, louder
  or softer, every second one under a scene.
- ``scene:babble``: noise (white, pink, brown, hum), music, four other voices at once, 0 to 20 dB
  below the speech or the sound, or alone; or a telephone line.

Speech has the splits of its corpora. Noise and music are kept apart as whole files, by the splits
of theirs; a sixth of the training files is for development. Sound effects are split by file inside
their class: a third for test, a sixth for development.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from speechadapt.audio import SAMPLE_RATE, audio_duration, load_audio
from speechadapt.data import Utterance, read_data_dir
from speechadapt.errors import DataError
from speechadapt.files import write_json
from speechadapt.training.augment import mix_at_snr
from speechadapt_recipes.bases.categories import write_categories
from speechadapt_recipes.bases.pool import licences
from speechadapt_recipes.corpora.channels import telephone
from speechadapt_recipes.corpora.common import Clip, decode_clips
from speechadapt_recipes.corpora.draws import rng_of
from speechadapt_recipes.corpora.splits import SPLITS

SECONDS = 5.0
SNR = (0.0, 20.0)  # dB
VOICES_OF_BABBLE = 4
SCENES = ("babble", "brown", "hum", "music", "pink", "telephone", "white")
SCENES_ALONE = {"train": 150, "dev": 20, "test": 40}  # clips of each scene without speech
VERSIONS = {"train": 12, "dev": 2, "test": 2}  # of each sound effect
SOUND_CLASSES = {  # folder of the stamps -> class; every other folder has too few: other
    "animals/birds": "bird",
    "animals/insects": "insect",
    "animals/mammals": "mammal",
    "animals/marsupials": "mammal",
    "hobbies/music": "instrument",
    "household": "household",
}
_TEST_SHARE, _DEV_SHARE = 3, 6  # one file in so many


@dataclass(frozen=True)
class Material:
    """What the clips of one split are made of.

    Attributes:
        speech: Utterances with a language.
        scenes: Recordings of noise and music by scene.
        sounds: Sound effects by class.
    """

    speech: Sequence[Utterance]
    scenes: dict[str, list[Utterance]]
    sounds: dict[str, list[Utterance]]


@dataclass(frozen=True)
class Mixture:
    """One clip to make.

    Attributes:
        name: Its id; everything drawn for it is a function of this.
        labels: What is true of it.
        front: Speech or a sound effect; None = the scene alone.
        scene: One of :data:`SCENES`; None = nothing behind.
    """

    name: str
    labels: tuple[str, ...]
    front: Utterance | None
    scene: str | None


def prepare(
    folder: Path, speech: Sequence[Path], noise: Path, music: Path, nj: int = 2
) -> dict[str, Counter[str]]:
    """Write ``folder/{train,dev,test}`` with ``utt2category``.

    Args:
        folder: Where to.
        speech: Folders with ``train``, ``dev`` and ``test`` data directories, with languages.
        noise: What ``speechadapt-recipes noise`` wrote, with sound effects.
        music: What ``speechadapt-recipes music`` wrote.
        nj: Parallel threads.

    Returns:
        Clips of each label by split.

    Raises:
        DataError: A folder is not what it should be, or a clip would be without material.
    """
    sources = [place / "train" for place in (*speech, noise, music)]
    licence = licences(sources)
    counts = {}
    for split in SPLITS:
        material = _material(split, speech, noise, music)
        mixtures = {mixture.name: mixture for mixture in _mixtures(split, material)}
        clips = [Clip(_utterance(mixture), split) for mixture in mixtures.values()]
        render = partial(_render_by_name, material, mixtures)
        made, unusable = decode_clips(clips, folder / "flac" / split, nj, render)
        if unusable:
            raise DataError(f"{folder}: {unusable[0][0]} cannot be made ({unusable[0][1]})")
        labels = {name: mixture.labels for name, mixture in mixtures.items()}
        utterances = [clip.utterance for clip in made]
        for utterance in material.speech:
            end = min(SECONDS, utterance.duration or SECONDS)
            utterances.append(replace(utterance, start=0.0, end=end, duration=end, text=None))
            labels[utterance.id] = (f"lang:{utterance.language}",)
        # Scenes alone have no language, and a table must speak of all utterances or not be there.
        utterances = [replace(utterance, language=None) for utterance in utterances]
        counts[split] = write_categories(folder / split, utterances, labels, licence)
    write_json(folder / "labels.json", counts)
    return counts


def _material(split: str, speech: Sequence[Path], noise: Path, music: Path) -> Material:
    spoken = [u for place in speech for u in read_data_dir(place / split)]
    if without := [u.id for u in spoken if u.language is None]:
        raise DataError(f"utterance {without[0]}: has no language; prepare utt2lang")
    side = "test" if split == "test" else "train"
    scenes: dict[str, list[Utterance]] = {}
    for label, files in [*_by_class(noise / side).items(), *_by_class(music / side).items()]:
        if label in SCENES:
            for_dev = max(len(files) // _DEV_SHARE, int(len(files) >= 3))
            cuts = {"train": (for_dev, None), "dev": (0, for_dev), "test": (0, None)}
            scenes[label] = _between(files, *cuts[split])
    # Split class by class, or those of few recordings would not be tested.
    effects: dict[str, dict[str, list[Utterance]]] = {}
    for folder in (noise / "train", noise / "test"):
        for label, files in _by_class(folder).items():
            if label not in SCENES:
                effects.setdefault(sound_class(label), {}).update(files)
    sounds = {}
    for name, files in effects.items():
        for_test, for_dev = len(files) // _TEST_SHARE, max(len(files) // _DEV_SHARE, 1)
        held_out = for_test + for_dev
        cuts = {"train": (held_out, None), "dev": (for_test, held_out), "test": (0, for_test)}
        sounds[name] = _between(files, *cuts[split])
    return Material(spoken, scenes, sounds)


def sound_class(label: str) -> str:
    """Class of a sound effect, from the folder of stamps it comes from."""
    return SOUND_CLASSES.get(label) or SOUND_CLASSES.get(label.split("/")[0], "other")


def _by_class(folder: Path) -> dict[str, dict[str, list[Utterance]]]:
    """Recordings by their class and then by a hash of their sound: copies go together."""
    table = (folder / "utt2class").read_text(encoding="utf-8").splitlines()
    classes = dict(line.split(maxsplit=1) for line in table)
    found: dict[str, dict[str, list[Utterance]]] = {}
    for utterance in read_data_dir(folder):
        digest = hashlib.sha256(Path(utterance.audio).read_bytes()).hexdigest()
        found.setdefault(classes[utterance.id], {}).setdefault(digest, []).append(utterance)
    return found


def _between(files: Mapping[str, list[Utterance]], first: int, last: int | None) -> list[Utterance]:
    return [utterance for digest in sorted(files)[first:last] for utterance in files[digest]]


def _mixtures(split: str, material: Material) -> Iterator[Mixture]:
    for utterance in material.speech:
        rng = rng_of(f"scene {utterance.id}")
        if rng.random() < 0.5:
            scene = str(rng.choice(SCENES))
            labels = (f"lang:{utterance.language}", f"scene:{scene}")
            yield Mixture(f"{utterance.id}-{scene}", labels, utterance, scene)
    for scene in SCENES:
        if scene == "telephone":  # a line without anybody on it
            continue
        for number in range(SCENES_ALONE[split]):
            yield Mixture(f"scene-{scene}-{split}-{number:03}", (f"scene:{scene}",), None, scene)
    for label, sounds in material.sounds.items():
        for sound in sounds:
            for version in range(VERSIONS[split]):
                name = f"sound-{sound.id}-{version:02}"
                behind = str(rng_of(name).choice(SCENES)) if version % 2 else None
                scenes = (f"scene:{behind}",) if behind else ()
                yield Mixture(name, (f"sound:{label}", *scenes), sound, behind)


def _utterance(mixture: Mixture) -> Utterance:
    speaker = mixture.front.speaker if mixture.front else None
    return Utterance(mixture.name, mixture.name, speaker=speaker)


def _render_by_name(material: Material, mixtures: dict[str, Mixture], name: str) -> np.ndarray:
    return render(mixtures[name], material)


def render(mixture: Mixture, material: Material) -> np.ndarray:
    """Samples ``[samples]`` of a mixture: float32 in [-1, 1], 16 kHz, 5 s at most.

    Raises:
        DataError: The split has no recording of the scene.
    """
    rng = rng_of(mixture.name)
    if mixture.front is None:
        count = round(rng.uniform(0.4 * SECONDS, SECONDS) * SAMPLE_RATE)
        front = np.zeros(count, np.float32)
    else:
        front = load_audio(mixture.front.audio)[: round(SECONDS * SAMPLE_RATE)]
    if mixture.scene == "telephone":
        front = telephone(front, rng)
    elif mixture.scene is not None:
        background = _background(mixture, material, len(front), rng)
        snr = float(rng.uniform(*SNR))
        alone = mixture.front is None
        front = background if alone else mix_at_snr(front, background, snr, random.Random(0))
    gain = 10 ** rng.uniform(-1.0, 0.0) / max(float(np.abs(front).max(initial=0.0)), 1e-4)
    return (front * min(gain, 30.0)).clip(-1, 1).astype(np.float32)


def _background(
    mixture: Mixture, material: Material, count: int, rng: np.random.Generator
) -> np.ndarray:
    """So many samples of the scene, ``[count]``."""
    if mixture.scene == "babble":
        return _babble(mixture, material, count, rng)
    files = material.scenes.get(mixture.scene or "", [])
    if not files:
        raise DataError(f"no recording of {mixture.scene}; prepare noise and music again")
    chosen = files[int(rng.integers(len(files)))]
    seconds = chosen.duration or audio_duration(chosen.audio)
    start = rng.uniform(0.0, max(0.0, seconds - SECONDS))
    return np.resize(load_audio(chosen.audio, start, min(start + SECONDS, seconds)), count)


def _babble(
    mixture: Mixture, material: Material, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Other voices of the same split, each about as loud."""
    mine = mixture.front.speaker if mixture.front else None
    others = [u for u in material.speech if u.speaker != mine]
    if not others:
        raise DataError("babble needs other speakers; give several languages or corpora")
    total = np.zeros(count)
    for index in rng.integers(len(others), size=VOICES_OF_BABBLE):
        wave = load_audio(others[int(index)].audio)
        total += np.resize(wave, count) / max(float(np.sqrt(np.mean(wave**2))), 1e-4)
    return (0.05 * total).clip(-1, 1).astype(np.float32)
