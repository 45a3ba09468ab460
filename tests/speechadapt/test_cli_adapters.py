"""``speechadapt adapters`` as users run it, on a small model on disk."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny_decoding import write_base

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.lora import LoraConfig
from speechadapt.adapters.registry import family_of
from speechadapt.cli.main import main
from speechadapt.errors import AdapterError
from speechadapt.heads.classifier import ClassifierConfig, ClassifierHead
from speechadapt.store import load_adapter, save_adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A transformers folder with a small random Whisper."""
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapters(base, tmp_path_factory) -> Path:
    """A folder with a LoRA and a bottleneck adapter."""
    backbone = speechadapt.load(base).backbone
    folder = tmp_path_factory.mktemp("adapters")
    for name, config in (
        ("be", LoraConfig(rank=2)),
        ("ro", BottleneckConfig(bottleneck=4, points=("ffn.out",))),
    ):
        info = AdapterInfo(
            language=name, trailing_silence=0.5, base="tiny", fingerprint=backbone.fingerprint
        )
        made = Adapter.fresh(name, config, family_of(config), backbone.sites.values(), info)
        generator = torch.Generator().manual_seed(0)
        for _, tensor in made.named_tensors():
            tensor.data = tensor.data + 0.2 * torch.randn(tensor.shape, generator=generator)
        save_adapter(made, folder / name)
    return folder


def run(capsys, *arguments) -> str:
    assert main(["adapters", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments) -> str:
    assert main(["adapters", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return err


@pytest.mark.parametrize("action", ["average", "import", "extract"])
def test_a_name_that_no_route_could_use(base, adapters, capsys, tmp_path, action):
    given = {"average": adapters / "be", "import": tmp_path / "peft", "extract": base}[action]
    if action == "import":
        run(capsys, "export", adapters / "be", "--base", base, "--out", given)
    out = ("--base", base, "--out", tmp_path / "out")
    assert "'x y' cannot be used" in refused(capsys, action, given, "--name", "x y", *out)
    assert not (tmp_path / "out").exists()


def test_two_of_one_name(base, adapters, capsys, tmp_path):
    """Neither takes the other's place without a word."""
    run(
        capsys,
        *("average", adapters / "ro", "--name", "be"),
        *("--base", base, "--out", tmp_path / "be"),
    )
    with pytest.raises(AdapterError, match=f"{tmp_path}/be: its name is 'be', .* {adapters}/be;"):
        speechadapt.load(base, adapters=[adapters / "ro", adapters / "be", tmp_path / "be"])
    model = speechadapt.load(base, adapters=[adapters / "be"])
    model.load_adapter(tmp_path / "be")  # asked for one by one, the later takes the place
    assert model.bank["be"].config.method == "bottleneck"


def test_list(adapters, capsys):
    lines = run(capsys, "list", adapters).splitlines()
    assert lines[0].split() == ["name", "method", "kind", "language", "base", "folder"]
    assert lines[1].split()[:5] == ["be", "lora", "language", "be", "tiny"]
    assert lines[2].split()[:2] == ["ro", "bottleneck"]
    assert "/nowhere: no such folder" in refused(capsys, "list", "/nowhere")


def test_list_goes_on_past_what_is_none(base, adapters, capsys, tmp_path):
    out = tmp_path / "b_peft"
    run(capsys, "export", adapters / "be", "--base", base, "--out", out)
    for name, folder in (("be", "a"), ("ro", "d")):
        shutil.copytree(adapters / name, tmp_path / folder)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "speechadapt.json").write_text("{")
    assert main(["adapters", "list", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["name", "be", "ro"]
    assert f"{tmp_path}/c/speechadapt.json: not readable" in err and err.count("\n") == 1


def test_info(base, adapters, capsys):
    out = run(capsys, "info", adapters / "be", "--base", base)
    assert "lora adapter (language) for the frozen base `tiny`" in out
    assert "- rank: 2" in out


def test_diff(base, adapters, capsys):
    out = run(capsys, "diff", adapters / "be", adapters / "ro", "--base", base)
    assert "config.method: 'lora' | 'bottleneck'" in out and "info.language: 'be' | 'ro'" in out
    assert "0 tensors of the same shape" in out
    same = run(capsys, "diff", adapters / "be", adapters / "be", "--base", base)
    assert "differs" not in same and same.count("\n") == 1


def test_diff_of_heads(base, adapters, capsys, tmp_path):
    backbone = speechadapt.load(base).backbone
    for name, labels in (("a", ("low", "high")), ("b", ("high", "low"))):
        adapter = load_adapter(adapters / "be", backbone)
        generator = torch.Generator().manual_seed(0)
        adapter.head = ClassifierHead.fresh(ClassifierConfig(labels), backbone.width, generator)
        save_adapter(adapter, tmp_path / name)
    both = run(capsys, "diff", tmp_path / "a", tmp_path / "b", "--base", base)
    assert "head.labels: ('low', 'high') | ('high', 'low')" in both
    one = run(capsys, "diff", tmp_path / "a", adapters / "be", "--base", base)
    assert "head.kind: 'classifier' | None" in one


def test_export_and_import(base, adapters, capsys, tmp_path):
    run(capsys, "export", adapters / "be", "--base", base, "--out", tmp_path / "peft")
    out = run(capsys, "import", tmp_path / "peft", "--base", base, "--out", tmp_path / "again")
    assert "adapter be:" in out
    backbone = speechadapt.load(base).backbone
    before, after = (
        dict(load_adapter(folder, backbone).named_tensors())
        for folder in (adapters / "be", tmp_path / "again")
    )
    scale = LoraConfig(rank=2).scale
    for key, tensor in before.items():
        torch.testing.assert_close(after[key], tensor * (scale if "/up" in key else 1))
    error = refused(capsys, "export", adapters / "ro", "--base", base, "--out", tmp_path / "no")
    assert "PEFT has LoRA alone" in error and not (tmp_path / "no").exists()
    error = refused(capsys, "import", adapters / "ro", "--base", base, "--out", tmp_path / "no")
    assert "no adapter of another library" in error


def test_merge_and_extract(base, adapters, capsys, tmp_path):
    """Merged into the base and taken out again, it is the same change."""
    merged = tmp_path / "merged"
    run(capsys, "merge", adapters / "be", "--base", base, "--out", merged)
    out = run(
        capsys,
        *("extract", merged, "--base", base, "--rank", 2, "--name", "be", "--language", "be"),
        *("--points", "*.q", "*.v", "--out", tmp_path / "lora"),
    )
    assert "100.0% of the squared change" in out and "not held" not in out
    backbone = speechadapt.load(base).backbone
    first, second = (
        load_adapter(folder, backbone) for folder in (adapters / "be", tmp_path / "lora")
    )
    assert second.info.language == "be"
    for site, tensors in first.tensors.items():
        change = first.config.scale * tensors["up.weight"] @ tensors["down.weight"]
        mine = second.tensors[site]
        torch.testing.assert_close(
            mine["up.weight"] @ mine["down.weight"], change, rtol=1e-3, atol=1e-5
        )
    error = refused(capsys, "merge", adapters / "ro", "--base", base, "--out", tmp_path / "no")
    assert "not linear" in error and not (tmp_path / "no").exists()


def test_pack(base, adapters, capsys, tmp_path):
    sizes = []
    for bits in (16, 8, 1):
        out = run(
            capsys,
            *("pack", adapters / "ro", "--base", base),
            *("--bits", bits, "--out", tmp_path / str(bits)),
        )
        sizes.append(int(out.split(" bytes")[0].split()[-1].replace(",", "")))
        load_adapter(tmp_path / str(bits), speechadapt.load(base).backbone)
    assert sizes[2] < min(sizes[:2])  # of a tiny adapter, the names of the tensors are the most


@pytest.mark.parametrize(
    "action", ["pack be", "average be be", "export be", "import peft", "merge be", "extract base"]
)
def test_out_is_never_a_folder_of_something_else(base, adapters, capsys, tmp_path, action):
    """Nothing is lost by a wrong --out, and nothing is loaded before it is told."""
    name, *inputs = action.split()
    if name == "import":
        run(capsys, "export", adapters / "be", "--base", base, "--out", tmp_path / "peft")
    places = {"base": base, "peft": tmp_path / "peft"}
    command = [name, *(places.get(each, adapters / each) for each in inputs), "--base", base]
    command += ["--name", "x"] if name == "extract" else []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    error = refused(capsys, *command, "--out", tmp_path / "full")
    assert "thesis.txt, which would be lost" in error
    assert ("weights from" in error) == (name == "export")  # others know what they will write
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years of work"
    for wrong in (".", "/", "..", base / "config.json", base / "config.json" / "below"):
        assert refused(capsys, *command, "--out", wrong).startswith(f"speechadapt: {wrong}: ")
    if name in ("pack", "export", "merge"):
        for _ in range(2):  # what the same command wrote is replaced
            run(capsys, *command, "--out", tmp_path / "new")


def test_merge_leaves_the_base(base, adapters, capsys):
    before = (base / "model.safetensors").read_bytes()
    error = refused(capsys, "merge", adapters / "be", "--base", base, "--out", base)
    assert "is the base itself" in error
    assert (base / "model.safetensors").read_bytes() == before
