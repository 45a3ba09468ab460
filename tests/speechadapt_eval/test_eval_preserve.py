"""Proofs that the base stayed as it was, and sizes from headers."""

import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from speechadapt_eval.cli.main import main
from speechadapt_eval.errors import EvalError
from speechadapt_eval.routes.parameters import sizes
from speechadapt_eval.routes.preserve import (
    compare_outputs,
    compare_transcripts,
    compare_weights,
)
from speechadapt_eval.routes.tensors import read_arrays, read_tensors
from speechadapt_eval.statistics.bootstrap import paired_difference
from speechadapt_eval.transcripts.wer import score


def model(seed=0):
    chance = np.random.default_rng(seed)
    return {
        "encoder.weight": chance.normal(size=(8, 4)).astype(np.float32),
        "encoder.bias": chance.normal(size=4).astype(np.float16),
        "steps": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
    }


def bfloat16(path, bits, name="half"):
    """A bfloat16 tensor, which numpy has not, written by hand."""
    bits = np.asarray(bits, np.uint16)
    entry = {"dtype": "BF16", "shape": list(bits.shape), "data_offsets": [0, bits.nbytes]}
    header = json.dumps({"__metadata__": {"format": "pt"}, name: entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bits.tobytes())


def test_checksums_are_of_the_bytes(tmp_path):
    tensors = model()
    save_file(tensors, tmp_path / "a.safetensors")
    found = compare_weights(*[read_tensors(tmp_path / "a.safetensors")] * 2)
    assert found.holds and not found.added
    assert found.sha256 == {
        name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in tensors.items()
    }


def test_every_kind_of_change_is_named(tmp_path):
    before, after = model(), model()
    after["encoder.weight"][3, 2] = np.nextafter(after["encoder.weight"][3, 2], np.float32(9))
    after["encoder.bias"] = after["encoder.bias"].astype(np.float32)
    del after["steps"]
    after["adapter.down"] = np.zeros(3)
    save_file(before, tmp_path / "a.safetensors")
    save_file(after, tmp_path / "b.safetensors")
    found = compare_weights(
        read_tensors(tmp_path / "a.safetensors"), read_tensors(tmp_path / "b.safetensors")
    )
    assert found.changed == {
        "encoder.weight": "other numbers",
        "encoder.bias": "F16 [4] became F32 [4]",
        "steps": "missing",
    }
    assert found.added == ("adapter.down",) and not found.holds


def test_shards_equal_one_file(tmp_path):
    tensors = model()
    (tmp_path / "shards").mkdir()
    for number, (name, array) in enumerate(tensors.items()):
        save_file({name: array}, tmp_path / "shards" / f"model-{number}.safetensors")
    save_file(tensors, tmp_path / "whole.safetensors")
    found = compare_weights(
        read_tensors(tmp_path / "whole.safetensors"), read_tensors(tmp_path / "shards")
    )
    assert found.holds and len(found.sha256) == 4
    save_file({"steps": np.array(1)}, tmp_path / "shards" / "z.safetensors")
    with pytest.raises(EvalError, match=r"'steps' is in .*model-2.safetensors and in .*z.safe"):
        read_tensors(tmp_path / "shards")


def test_types_that_numpy_has_not(tmp_path):
    bfloat16(tmp_path / "a.safetensors", [1, 2, 3])
    bfloat16(tmp_path / "b.safetensors", [1, 2, 4])
    before = read_tensors(tmp_path / "a.safetensors")
    assert (before["half"].dtype, before["half"].numbers) == ("BF16", 3)
    assert compare_weights(before, before).holds
    assert not compare_weights(before, read_tensors(tmp_path / "b.safetensors")).holds
    with pytest.raises(EvalError, match=r"a.safetensors: .*bfloat16.*; save it as float32"):
        read_arrays(tmp_path / "a.safetensors")


@given(st.binary(max_size=80), st.integers(0, 200))
def test_damaged_files_are_named(tmp_path_factory, noise, cut):
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "m.safetensors"
    save_file(model(), path)
    whole = path.read_bytes()
    for data in (noise, whole[: min(cut, len(whole) - 1)]):
        path.write_bytes(data)
        for reader in (read_tensors, read_arrays):
            with pytest.raises(EvalError, match=r"cannot read .*m\.safetensors"):
                reader(path)


def test_file_that_shrinks_while_read(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file(model(), path)
    tensors = read_tensors(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(EvalError, match="became shorter while it was read"):
        compare_weights(tensors, tensors)


def test_outputs(tmp_path):
    before = {"u1": np.ones((3, 2), np.float32), "u2": np.full(4, -2.0, np.float32)}
    after = {name: array.copy() for name, array in before.items()}
    same = compare_outputs(before, after)
    assert same.holds and (same.arrays, same.numbers, same.where) == (2, 10, "")
    after["u2"][1] -= 2**-20
    other = compare_outputs(before, after)
    assert not other.holds and (other.max_abs_difference, other.where) == (2**-20, "u2")
    after["u1"][0, 0] = np.nan
    broken = compare_outputs(before, after)
    assert math.isnan(broken.max_abs_difference) and broken.where == "u1" and not broken.holds
    assert compare_outputs(after, after).holds  # the same bytes, not-a-numbers included
    wider = {name: array.astype(np.float64) for name, array in before.items()}
    assert compare_outputs(before, wider).holds


def test_outputs_that_cannot_be_compared():
    one = {"u1": np.ones(3)}
    for other, message in (
        ({"u2": np.ones(3)}, r"differ in their names \('u1', 'u2'\)"),
        ({"u1": np.ones(4)}, r"'u1' is \[3\] before and \[4\] after"),
    ):
        with pytest.raises(EvalError, match=message):
            compare_outputs(one, other)
    for nothing in ({}, {"u1": np.ones(0)}):
        with pytest.raises(EvalError, match="hold no number"):
            compare_outputs(nothing, nothing)


def test_transcripts():
    found = compare_transcripts({"u1": "a", "u2": "b"}, {"u2": "B", "u1": "a"})
    assert (found.utterances, found.different, found.holds) == (2, ("u2",), False)
    assert compare_transcripts({"u1": ""}, {"u1": ""}).holds
    with pytest.raises(EvalError, match=r"1 utterances are in one of the two .*\('u2'\)"):
        compare_transcripts({"u1": "a", "u2": "b"}, {"u1": "a"})


def test_sizes(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "be"
    base.mkdir()
    adapter.mkdir()
    save_file(model(), base / "model.safetensors")
    save_file({"down": np.ones((2, 3), np.float32)}, adapter / "adapter.safetensors")
    bfloat16(tmp_path / "ro.safetensors", np.arange(6).reshape(2, 3))
    found = sizes([adapter, tmp_path / "ro.safetensors"], base)
    assert [size.name for size in found] == ["base", "be", "ro", "total"]
    assert found[0].parameters == sum(array.size for array in model().values()) == 37
    assert found[0].dtypes == {"F32": 32, "F16": 4, "I64": 1} and math.isnan(found[0].share)
    assert [size.parameters for size in found[1:]] == [6, 6, 12]
    assert found[1].share == 6 / 37 and found[3].share == 12 / 37
    assert found[3].dtypes == {"F32": 6, "BF16": 6} and found[3].tensors == 2
    files = (adapter / "adapter.safetensors", tmp_path / "ro.safetensors")
    assert [size.bytes for size in found[1:3]] == [file.stat().st_size for file in files]
    assert math.isnan(sizes([adapter])[0].share)


def test_sizes_need_headers_only(tmp_path):
    """A file of 2 TB, all of it a hole, is measured at once."""
    path = tmp_path / "huge.safetensors"
    size = 2 << 40
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    header = json.dumps({"w": entry}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    assert sizes([path])[0].parameters == size // 4


def test_sizes_refuse(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(EvalError, match=r"a holds no \.safetensors file"):
        sizes([tmp_path / "a"])
    save_file(model(), tmp_path / "a" / "m.safetensors")
    with pytest.raises(EvalError, match="are both called 'a': rename one"):
        sizes([tmp_path / "a", tmp_path / "a"])
    save_file({"empty": np.zeros(0)}, tmp_path / "none.safetensors")
    with pytest.raises(EvalError, match="has no parameter"):
        sizes([tmp_path / "a"], tmp_path / "none.safetensors")
    with pytest.raises(EvalError, match=r"no tensor to compare"):
        compare_weights({}, {})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(model(), "before.safetensors")
    save_file(model() | {"adapter": np.ones(2)}, "after.safetensors")
    np.savez("off.npz", u1=np.ones((2, 2)))
    np.savez("off2.npz", u1=np.ones((2, 2)) + 1e-12)
    refs = {f"u{i}": "adzin dva try čatyry" for i in range(40)}
    worse = {key: text if int(key[1:]) % 8 else "adzin dva" for key, text in refs.items()}
    for name, texts in (("ref", refs), ("same", refs), ("worse", worse)):
        lines = (f"{key} {text}\n" for key, text in texts.items())
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    return tmp_path


def run(capsys, *arguments):
    code = main([*arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_preserve_command(folder, capsys):
    files = ("preserve", "before.safetensors", "after.safetensors")
    good = ("--off-route", "off.npz", "off.npz", "--transcripts", "same", "same")
    task = ("--task", "be", "ref", "same", "same")
    code, out, err = run(capsys, *files, *good, *task, "--out", "tables")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "weights: 4 tensors, 0 changed, 1 added",
        "off-route outputs: 1 arrays, 4 numbers, largest difference 0",
        "transcripts: 40, 0 different",
        "be: 0.00 -> 0.00 %, difference +0.00 [+0.00, +0.00], worse by no more than 0.5 points: "
        "yes (does not cover other speakers: no speakers were given)",
        "preserved",
    ]
    found = json.loads((folder / "tables" / "preserve.json").read_text())
    assert found["holds"] and found["weights"]["holds"] and found["tasks"][0]["holds"]
    assert found["off_route"]["max_abs_difference"] == 0.0
    assert len(found["weights"]["sha256"]) == 4


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--off-route", "off.npz", "off2.npz"], "largest difference 1.00009e-12 in 'u1'"),
        (["--transcripts", "same", "worse"], "transcripts: 40, 5 different ('u0', 'u16', 'u24'"),
        (["--task", "be", "ref", "same", "worse"], "worse by no more than 0.5 points: not shown"),
    ],
)
def test_preserve_command_says_what_was_lost(folder, capsys, options, line):
    files = ("preserve", "before.safetensors", "after.safetensors")
    code, out, _ = run(capsys, *files, *options)
    assert code == 0 and line in out and out.endswith("NOT preserved\n")
    assert json.loads(run(capsys, *files, *options, "--json")[1])["holds"] is False


def test_margin_is_that_of_the_paired_interval(folder, capsys):
    refs = dict(line.split(" ", 1) for line in (folder / "ref").read_text().splitlines())
    worse = dict(line.split(" ", 1) for line in (folder / "worse").read_text().splitlines())
    paired = paired_difference(score(refs, refs), score(refs, worse))
    files = ("preserve", "before.safetensors", "before.safetensors")
    for margin, holds in ((100 * paired.high + 0.1, True), (100 * paired.high - 0.1, False)):
        options = ("--task", "be", "ref", "same", "worse", "--margin", str(margin), "--json")
        found = json.loads(run(capsys, *files, *options)[1])
        assert found["holds"] is holds and found["tasks"][0]["paired"]["high"] == paired.high


def test_preserve_command_on_changed_weights(folder, capsys):
    save_file(model(seed=1), "after.safetensors")
    _, out, _ = run(capsys, "preserve", "before.safetensors", "after.safetensors")
    assert "weights: 4 tensors, 2 changed ('encoder.bias: other numbers', 'encoder.w" in out
    code, out, err = run(capsys, "preserve", "before.safetensors", "none.safetensors")
    assert (code, out) == (2, "") and "none.safetensors" in err and err.count("\n") == 1


def test_parameters_command(folder, capsys):
    arguments = ("parameters", "after.safetensors", "--base", "before.safetensors")
    code, out, err = run(capsys, *arguments, "--out", "tables")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:2] == ["tensors", "parameters"] and lines[2][:3] == ["before", "4", "37"]
    assert lines[3][:4] == ["after", "5", "39", "105.405"] and lines[4][0] == "total"
    found = json.loads((folder / "tables" / "params.json").read_text())
    assert found["base"]["share"] is None and found["total"]["parameters"] == 39
    assert json.loads(run(capsys, *arguments, "--json")[1]) == found
