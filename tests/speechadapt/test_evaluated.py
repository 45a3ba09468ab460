"""Our own system in ``speechadapt-eval run``: the texts of ``speechadapt transcribe``, each adapter
for its language."""

import json
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from tiny_decoding import waves, write_base
from whisper_files import ct2_variables, model_bin, tiny_whisper, write_ct2

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.registry import family_of
from speechadapt.cli.main import main as transcribe
from speechadapt.evaluated import System
from speechadapt.store import save_adapter
from speechadapt_eval.cli.main import main
from speechadapt_eval.io import read_kaldi_text
from speechadapt_eval.runs.folder import Run

LENGTHS = (1.1, 0.4, 0.8)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a small random Whisper ``base`` and adapters ``be`` and ``ro`` for it."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "base").mkdir()
    write_base(folder / "base")
    for seed, name in enumerate(("be", "ro")):
        write_adapter(folder, name, seed)
    return folder


def write_adapter(folder, name, seed):
    backbone = speechadapt.load(folder / "base").backbone
    config = BottleneckConfig(bottleneck=4, points=("ffn.out",))
    info = AdapterInfo(
        language=name, trailing_silence=0.5, base="tiny", fingerprint=backbone.fingerprint
    )
    made = Adapter.fresh(name, config, family_of(config), backbone.sites.values(), info)
    generator = torch.Generator().manual_seed(seed)
    for _, tensor in made.named_tensors():
        tensor.data = tensor.data + 0.5 * torch.randn(tensor.shape, generator=generator)
    save_adapter(made, folder / name)


@pytest.fixture(autouse=True)
def entry_point(tmp_path, monkeypatch):
    """As if this checkout were installed."""
    info = tmp_path / "site" / "checkout-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: checkout\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "[speechadapt_eval.systems]\nspeechadapt = speechadapt.evaluated:System\n"
    )
    monkeypatch.setattr(sys, "path", [str(info.parent), *sys.path])
    monkeypatch.chdir(tmp_path)
    for lang in ("be", "ro"):
        write_data(tmp_path / lang, lang)


def write_data(folder, lang):
    folder.mkdir()
    names = [f"{lang}{i}" for i in range(len(LENGTHS))]
    for name, wave in zip(names, waves(*LENGTHS), strict=True):
        soundfile.write(folder / f"{name}.wav", wave, 16_000)
    tables = {"wav.scp": lambda n: folder / f"{n}.wav", "text": lambda n: "ab c"}
    for table, value in (tables | {"utt2lang": lambda n: lang}).items():
        (folder / table).write_text("".join(f"{name} {value(name)}\n" for name in names))


def run(*options):
    sets = ("--set", "be=be", "--set", "ro=ro")
    assert main(["run", *options, *sets, "--out", "out", "--samples", "100"]) == 0
    return Run.read(Path("out"))


def test_the_texts_of_transcribe_each_adapter_for_its_language(models, capsys):
    adapters = f"adapters=speechadapt:{models}/base:{models}/{{lang}}"
    made = run("--system", f"frozen=speechadapt:{models}/base", "--system", adapters)
    for name in ("frozen", "adapters"):
        for lang in ("be", "ro"):
            own = [] if name == "frozen" else ["--adapter", str(models / lang)]
            arguments = [lang, "--base", str(models / "base"), *own, "--format", "kaldi"]
            assert transcribe(["transcribe", *arguments, "--out", f"{name}.{lang}"]) == 0
            rows = made.rows(name, lang)
            texts = read_kaldi_text(Path(f"{name}.{lang}"))
            assert {n: " ".join(row.hyp.split()) for n, row in rows.items()} == {
                n: " ".join(text.split()) for n, text in texts.items()
            }
            assert any(texts.values())
            assert {row.fields["adapter"] for row in rows.values()} == {
                "none" if name == "frozen" else lang
            }
            assert {row.fields["seconds"] for row in rows.values()} == {None}
            assert made.decoding(name, lang).batched
    frozen, adapted = made.systems
    model = speechadapt.load(models / "base", [models / "be"])
    (adapter,) = model.bank
    size = sum(tensor.numel() for _, tensor in adapter.named_tensors())
    assert (frozen.trainable, adapted.trainable) == (0, size)
    assert adapted.parameters == frozen.parameters + size
    assert frozen.parameters == sum(p.numel() for p in model.backbone.model.parameters())
    assert adapted.load_seconds > 0 and adapted.threads == torch.get_num_threads()
    assert made.rows("frozen", "be").keys() == {"be0", "be1", "be2"}

    alone = run("--system", adapters, "--one-by-one")
    for lang in ("be", "ro"):  # batches change nothing
        for name, row in alone.rows("adapters", lang).items():
            assert row.hyp == made.rows("adapters", lang)[name].hyp
            assert row.fields["seconds"] > 0


def test_cached_as_long_as_the_files_are_the_same(models, monkeypatch, tmp_path):
    spec = f"speechadapt:{models}/base:{tmp_path}/be-copy"
    (tmp_path / "be-copy").symlink_to(models / "be")
    first = run("--system", f"x={spec}").decoding("x", "be")
    loaded = System(f"{models}/base:{models}/be").fingerprint()
    assert loaded == System(spec.partition(":")[2]).fingerprint()  # wherever the files lie
    monkeypatch.setattr(System, "open", lambda *_: pytest.fail("nothing is to be computed"))
    assert run("--system", f"x={spec}").decoding("x", "be") == first
    fingerprints = {
        json.dumps(System(argument).fingerprint(), sort_keys=True)
        for argument in (
            f"{models}/base",
            f"{models}/base:{models}/be",
            f"{models}/base:{models}/ro",
            f"{models}/base:{models}/ro?beam=2",
            f"{models}/base:{models}/ro:{models}/be",
            "openai/whisper-base",
        )
    }
    assert len(fingerprints) == 6


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("{models}/base?bean=3", "unknown setting 'bean'; known are route, beam"),
        ("{models}/base?beam=many", "beam=many: give a number"),
        ("{models}/base?beam=0", "beam size 0 is too small"),
        ("{models}/base:{models}/none", "none"),
        ("{models}/nowhere", "nowhere"),
        ("{models}/base:{models}/be:{models}/ro", "say which with ?route=, of be, ro"),
        ("{models}/base:{models}/be?route=ro", "ro"),
        ("{models}/base?device=gpu", "gpu"),
    ],
)
def test_mistakes_are_one_sentence(models, capsys, argument, message):
    spec = f"speechadapt:{argument.format(models=models)}"
    assert main(["run", "--system", spec, "--set", "be", "--out", "out"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("speechadapt-eval: system") and message in said


def test_settings_reach_the_search(models):
    rows = [
        run("--system", f"x=speechadapt:{models}/base:{models}/be{setting}").rows("x", "be")
        for setting in ("?route=none&context=0.5", "?context=0.5", "")
    ]
    texts = [[row.hyp for row in each.values()] for each in rows]
    assert texts[0] != texts[1] == texts[2]  # half a second is what the adapter asks for
    assert {row.fields["adapter"] for row in rows[0].values()} == {"none"}


def test_faster_whisper_of_a_folder_without_its_list_of_tokens(tmp_path):
    package = pytest.importorskip("faster_whisper")
    model = tiny_whisper(max_source_positions=1500, max_target_positions=448)
    folder = write_ct2(tmp_path / "ct2", model_bin(ct2_variables(model)))
    settings = {"beam_size": 1, "temperature": 0, "max_new_tokens": 8}
    query = "&".join(f"{name}={value}" for name, value in settings.items())
    made = run("--system", f"fw=faster-whisper:{folder}?{query}")
    assert made.systems[0].load_seconds > 0
    described = json.loads((folder / "tokenizer.json").read_text())
    tokens = [*described["model"]["vocab"], *(t["content"] for t in described["added_tokens"])]
    (folder / "vocabulary.json").write_text(json.dumps(tokens))
    direct = package.WhisperModel(str(folder))
    for name, row in made.rows("fw", "ro").items():
        segments, _ = direct.transcribe(f"ro/{name}.wav", language="ro", **settings)
        assert row.hyp == " ".join("".join(s.text for s in segments).split())
        assert row.fields["seconds"] > 0
