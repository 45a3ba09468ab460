"""The recipes of the small bases: synthetic speech, pooled data, scenes, random bases, cards."""

import ctypes
import gzip
import json
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from kaldi_rules import problems

import speechadapt
from speechadapt.audio import load_audio
from speechadapt.data import Utterance, read_data_dir, write_data_dir
from speechadapt.errors import AudioError, CheckpointError, ConfigError, DataError
from speechadapt_eval.errors import EvalError
from speechadapt_recipes.bases import scenes
from speechadapt_recipes.bases.categories import read_categories, write_categories
from speechadapt_recipes.bases.front_end import gabor_filters
from speechadapt_recipes.bases.pool import pool
from speechadapt_recipes.bases.store import store
from speechadapt_recipes.cli import main
from speechadapt_recipes.corpora import asterisk, synthetic, tuxpaint
from speechadapt_recipes.corpora.channels import CHANNELS
from speechadapt_recipes.corpora.espeak import ARCHIVE, VOICES, Speaker, load_speaker
from speechadapt_recipes.corpora.splits import SPLITS, normalised

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
    with pytest.raises(DataError, match="no texts in xx"):
        synthetic.prepare(tmp_path / "data", texts, ["xx"], speaker=speaker)


def write_sounds(folder, names, seconds=0.5, **fields):
    """A data directory of noisy clips, each different."""
    utterances = []
    for name in names:
        path = folder / "wav" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(abs(hash_of(name)))
        soundfile.write(path, 0.1 * rng.standard_normal(int(16_000 * seconds)), 16_000)
        utterances.append(Utterance(name, str(path), duration=seconds, **fields))
    return utterances


def hash_of(name):
    return int.from_bytes(name.encode()[-7:], "big")


def test_pooling_leaves_out_what_ctc_cannot_learn(tmp_path):
    texts = {"a": "one", "b": "?!", "c": "aabbccddee" * 3, "d": "two", "e": "x" * 20}
    utterances = write_sounds(tmp_path, texts, speaker="s")
    utterances = [
        Utterance(
            f"s-{u.id}", u.audio, text=texts[u.id], speaker="s",
            duration=20.0 if u.id == "d" else 0.6 if u.id == "e" else 0.5,
        )
        for u in utterances
    ]  # fmt: skip
    write_data_dir(tmp_path / "one", utterances[:3], {"LICENCE": "free\n"})
    write_data_dir(tmp_path / "two", utterances[3:], {"LICENCE": "free\nmore\n"})
    both = [tmp_path / "one", tmp_path / "two"]
    assert pool(both, tmp_path / "all", for_ctc=False) == {}
    assert len(read_data_dir(tmp_path / "all")) == 5
    reasons = pool(both, tmp_path / "ctc", for_ctc=True)
    assert reasons == {
        "nothing that can be heard in the text": 1,
        "more characters than outputs": 2,  # 20 equal ones need 19 blanks between them
        "longer than 16 s": 1,
    }
    assert [u.id for u in read_data_dir(tmp_path / "ctc")] == ["s-a"]
    assert problems(tmp_path / "ctc") == []
    assert (tmp_path / "ctc" / "LICENCE").read_text() == "free\nmore\n"
    with pytest.raises(DataError, match="s-a is in an earlier directory"):
        pool([tmp_path / "one", tmp_path / "one"], tmp_path / "twice", for_ctc=False)


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


def test_band_pass_filters_are_where_they_should_be():
    filters = gabor_filters(32, 256)[:, 0].double()
    assert filters.shape == (32, 256)
    response = torch.fft.rfft(filters, 4096).abs()
    peaks = response.argmax(1) * 16_000 / 4096
    assert (peaks[:16].diff() > 0).all() and peaks[0] > 60 and peaks[15] < 7600
    torch.testing.assert_close(peaks[:16], peaks[16:], rtol=0.1, atol=20.0)
    inner = (
        (filters[:16] * filters[16:]).sum(1) / filters[:16].norm(dim=1) / filters[16:].norm(dim=1)
    )
    assert inner.abs().max() < 0.1  # cosine and sine


TINY = {
    "wav2vec2": """
model_type: wav2vec2
hidden_size: 16
num_hidden_layers: 2
num_attention_heads: 2
intermediate_size: 16
conv_dim: [8, 8]
conv_kernel: [40, 3]
conv_stride: [20, 16]
num_feat_extract_layers: 2
feat_extract_norm: layer
conv_bias: true
do_stable_layer_norm: true
num_conv_pos_embeddings: 4
num_conv_pos_embedding_groups: 2
""",
    "ast": """
model_type: audio-spectrogram-transformer
hidden_size: 16
num_hidden_layers: 1
num_attention_heads: 2
intermediate_size: 16
num_mel_bins: 32
max_length: 64
time_stride: 16
frequency_stride: 16
""",
}


def initialise(tmp_path, kind, data, name="init", *more):
    config = tmp_path / "model.yaml"
    config.write_text(TINY[kind])
    arguments = ["init", "--config", config, "--data", data, "--out", tmp_path / name, *more]
    assert main([str(argument) for argument in arguments]) == 0
    return tmp_path / name


def test_a_random_wav2vec2_has_the_characters_of_its_data(corpora, tmp_path, capsys):
    data = tmp_path / "data"
    utterances = [
        Utterance(u.id, u.audio, text=text, speaker=u.speaker, duration=0.3)
        for u, text in zip(read_data_dir(corpora / "be/train")[:2], ("Жа ба!", "să"), strict=True)
    ]
    write_data_dir(data, utterances, {"LICENCE": "free\n"})
    folder = initialise(tmp_path, "wav2vec2", data)
    model = speechadapt.load(str(folder))
    assert model.backbone.head.config.tokens == ("<pad>", "|", "<unk>", *"săабж")
    assert f"{model.backbone.parameter_count:,} parameters" in capsys.readouterr().out
    first = model.backbone.model.wav2vec2.feature_extractor.conv_layers[0].conv.weight
    assert torch.equal(first, gabor_filters(8, 40))
    again = initialise(tmp_path, "wav2vec2", data, "again")
    weights = "model.safetensors"
    assert (again / weights).read_bytes() == (folder / weights).read_bytes()
    other = initialise(tmp_path, "wav2vec2", data, "other", "--seed", 1)
    assert (other / weights).read_bytes() != (folder / weights).read_bytes()


def test_transformers_reads_the_vocabulary_of_a_random_wav2vec2(corpora, tmp_path):
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

    data = tmp_path / "data"
    first = read_data_dir(corpora / "be/train")[0]
    write_data_dir(data, [Utterance(first.id, first.audio, text="ab a", speaker=first.speaker)])
    folder = initialise(tmp_path, "wav2vec2", data)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder)
    assert tokenizer("ab a").input_ids == [3, 4, 1, 3]
    assert tokenizer.decode([3, 0, 4, 4, 1, 3]) == "ab a"
    assert Wav2Vec2FeatureExtractor.from_pretrained(folder).do_normalize


def test_a_random_ast_has_the_labels_of_its_data(clips, tmp_path):
    folder = initialise(tmp_path, "ast", clips[0] / "train")
    head = speechadapt.load(str(folder)).backbone.head
    assert head.config.multi_label
    assert head.config.labels == tuple(sorted(clips[1]["train"]))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("model_type: lstm", "needs a model_type"),
        ("[", "cannot be read as YAML"),
        (TINY["ast"] + "hiden_size: 3", "has no setting hiden_size"),
        (TINY["wav2vec2"] + "num_conv_pos_embedding_groups: 3", "no model can be made of it"),
    ],
)
def test_configs_that_make_no_model_are_refused(corpora, tmp_path, text, word):
    from speechadapt_recipes.bases.random_base import write_random_base

    config = tmp_path / "model.yaml"
    config.write_text(text)
    data = tmp_path / "data"
    first = read_data_dir(corpora / "be/train")[0]
    write_data_dir(data, [Utterance(first.id, first.audio, text="a", speaker=first.speaker)])
    with pytest.raises(ConfigError, match=word):
        write_random_base(config, [data], tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def finished(clips, tmp_path):
    """A run as ``finetune`` leaves it, of an AST that is as random as before."""
    init = initialise(tmp_path, "ast", clips[0] / "train")
    run = tmp_path / "run"
    model = speechadapt.load(str(init)).backbone
    model.save(model.model, run / "model")
    result = {"steps": 9, "best_step": 6, "seconds": 61.4}
    (run / "result.json").write_text(json.dumps(result))
    return init, run, clips[0] / "train"


def test_a_stored_base_is_half_as_large_loads_and_has_a_card(finished, tmp_path):
    init, run, data = finished
    results, out = tmp_path / "dev.md", tmp_path / "base"
    results.write_text("| a | table |\n")
    arguments = ["store", "--run", run, "--init", init, "--data", data, "--results", results]
    arguments += ["--command", "speechadapt finetune", "--note", "commit 123", "--out", out]
    assert main([str(argument) for argument in arguments]) == 0
    size = (out / "model.safetensors").stat().st_size
    assert size < 0.6 * (run / "model/model.safetensors").stat().st_size
    before, after = speechadapt.load(str(run / "model")), speechadapt.load(str(out))
    assert before.backbone.fingerprint == after.backbone.fingerprint
    card = (out / "README.md").read_text()
    parts = ("commit 123", "`speechadapt finetune`", "| a | table |", "  - free", "no more than")
    for part in (*parts, f"{after.backbone.parameter_count:,} parameters", "9, kept", "6; 61 s"):
        assert part in card


def test_bases_that_are_too_large_or_unfinished_are_not_stored(finished, tmp_path):
    init, run, data = finished
    with pytest.raises(CheckpointError, match=r"bytes in float16, 1,000 are allowed"):
        store(run, init, tmp_path / "base", [data], "", "", "", most_bytes=1000)
    (run / "result.json").unlink()
    with pytest.raises(EvalError, match="missing; run the earlier"):
        store(run, init, tmp_path / "base", [data], "", "", "")
    assert not (tmp_path / "base").exists()


def test_words_by_voice(tmp_path, capsys):
    utterances = [
        Utterance(f"v_{language}-{n}", "x.flac", text="one two", language=language,
                  speaker=f"v_{language}", duration=1.0)
        for language in ("be", "ro") for n in range(2)
    ]  # fmt: skip
    write_data_dir(tmp_path / "data", utterances)
    text = tmp_path / "text"
    text.write_text("v_be-0 one two\nv_be-1 one\nv_ro-0 one two\nv_ro-1 one two\n")
    assert main(["words", str(tmp_path / "data"), str(text)]) == 0
    rows = table_rows(capsys.readouterr().out)
    assert rows[1][:5] == ["be", "v_be", "2", "4", "25.00"]
    assert rows[2][:5] == ["ro", "v_ro", "2", "4", "0.00"]
    assert rows[3][:5] == ["all", "", "4", "8", "12.50"]


def table_rows(text):
    rows = [[c.strip() for c in line.strip("| \n").split("|")] for line in text.splitlines()]
    return [row for row in rows if len(row) > 1 and not set("".join(row)) <= set("-:")]


def test_labels_by_kind_and_condition(tmp_path, capsys):
    truth = {
        "a": ("lang:be",), "b": ("lang:ro",), "c": ("lang:be", "scene:hum"),
        "d": ("scene:hum",), "e": ("sound:bird",), "f": ("sound:tool", "scene:hum"),
    }  # fmt: skip
    utterances = [Utterance(name, "x.flac", duration=1.0) for name in truth]
    write_categories(tmp_path / "data", utterances, truth, "free\n")
    labels = sorted({label for mine in truth.values() for label in mine})
    answers = tmp_path / "answers.jsonl"
    wrong = {"b": {"lang:be": 0.9}, "f": {"sound:bird": 0.8}}
    rows = []
    for name, mine in truth.items():
        row = {label: 0.7 if label in mine else 0.1 for label in labels} | wrong.get(name, {})
        rows.append(json.dumps({"id": name, "seconds": 1.0, "labels": row}))
    answers.write_text("\n".join(rows) + "\n")
    assert main(["labels", str(tmp_path / "data"), str(answers)]) == 0
    found = table_rows(capsys.readouterr().out)
    errors = {(row[0], row[1]): row[2:4] for row in found if len(row) == 5}
    assert errors["lang", "all"] == ["3", "33.33"]
    assert errors["lang", "alone"] == ["2", "50.00"]
    assert errors["lang", "hum"] == ["1", "0.00"]
    assert errors["sound", "all"] == ["2", "50.00"]
    assert errors["scene", "alone"] == ["1", "0.00"]
    precision = {row[0]: row[1:] for row in found if len(row) == 3}
    assert precision["scene:hum"] == ["3", "100.00"]
    assert precision["lang:be"] == ["2", "66.67"]  # after b, tied: 2 of the first 3
    answers.write_text(rows[0] + "\n")
    assert main(["labels", str(tmp_path / "data"), str(answers)]) == 2
    assert "b has no probability of lang:be" in capsys.readouterr().err
