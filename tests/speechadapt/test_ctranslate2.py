"""The CTranslate2 importer: equal to the model it came from, and unmoved by damaged files."""

from __future__ import annotations

import json
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper_files import (
    SETTINGS,
    bfloat16,
    ct2_variables,
    int8,
    int16,
    logits,
    model_bin,
    tiny_whisper,
    write_ct2,
)

from speechadapt.backbones.ctranslate2 import load_ctranslate2, read_model_bin
from speechadapt.errors import CheckpointError


@pytest.fixture(scope="module")
def original():
    return tiny_whisper()


@pytest.fixture(scope="module")
def variables(original):
    return ct2_variables(original)


@pytest.fixture(scope="module")
def folder(variables, tmp_path_factory):
    return write_ct2(tmp_path_factory.mktemp("ct2"), model_bin(variables))


def test_every_variable_is_read_as_it_was_written(variables, folder):
    read = read_model_bin(folder / "model.bin")
    assert read.keys() == variables.keys() | {"decoder/projection/weight"}
    for name, values in variables.items():
        np.testing.assert_array_equal(read[name], values, err_msg=name)
        assert read[name].dtype == values.dtype
    assert read["decoder/projection/weight"] is read["decoder/embeddings/weight"]


def test_the_loaded_model_is_the_original_bit_for_bit(original, folder):
    model, _, _ = load_ctranslate2(folder)
    assert torch.equal(logits(model), logits(original))
    ours, theirs = model.state_dict(), original.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    assert not model.training


def test_parts_of_a_stacked_weight_share_no_memory(folder):
    model, _, _ = load_ctranslate2(folder)
    attention = model.model.encoder.layers[0].self_attn
    with torch.no_grad():
        attention.q_proj.weight.fill_(7.0)
    assert not (attention.k_proj.weight == 7.0).any()
    pointers = {p.untyped_storage().data_ptr() for p in model.parameters()}
    assert len(pointers) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("stored", "tolerance"),
    [
        (lambda v: {n: a.astype("f2") if a.ndim else a for n, a in v.items()}, 2e-3),
        (bfloat16, 1e-2),
        (int8, 1e-2),
        (int16, 2e-3),
    ],
    ids=["float16", "bfloat16", "int8", "int16"],
)
def test_smaller_types_come_back_as_near_float32(original, variables, tmp_path, stored, tolerance):
    write_ct2(tmp_path, model_bin(stored(variables)))
    model, _, _ = load_ctranslate2(tmp_path)
    for name, values in model.state_dict().items():
        assert values.dtype == torch.float32
        wanted = original.state_dict()[name]
        assert (values - wanted).abs().max() <= tolerance * wanted.abs().max(), name


def test_int8_projection_may_be_an_alias_with_its_scale(variables, tmp_path):
    aliases = (
        ("decoder/projection/weight", "decoder/embeddings/weight"),
        ("decoder/projection/weight_scale", "decoder/embeddings/weight_scale"),
    )
    write_ct2(tmp_path, model_bin(int8(variables), aliases))
    load_ctranslate2(tmp_path)


def test_tokenizer_and_generation_settings(folder):
    model, tokenizer, generation = load_ctranslate2(folder)
    vocabulary = tokenizer.get_vocab()
    text = "Добры дзень, café"
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    marked = [257, 259, 263, 267, *tokens, 256]
    assert tokenizer.decode(marked, skip_special_tokens=True) == text
    timed = [vocabulary["<|0.00|>"], *tokens, vocabulary["<|2.00|>"]]
    assert tokenizer.decode(timed) == text
    assert tokenizer.decode(timed, decode_with_timestamps=True) == f"<|0.00|>{text}<|2.00|>"
    assert generation.decoder_start_token_id == vocabulary["<|startoftranscript|>"] == 257
    assert generation.eos_token_id == generation.pad_token_id == vocabulary["<|endoftext|>"]
    assert generation.no_timestamps_token_id == vocabulary["<|notimestamps|>"]
    assert generation.suppress_tokens == SETTINGS["suppress_ids"]
    assert generation.begin_suppress_tokens == SETTINGS["suppress_ids_begin"]
    assert generation.alignment_heads == SETTINGS["alignment_heads"]
    assert generation.max_length == model.config.max_target_positions
    assert generation.is_multilingual is False  # the tiny vocabulary is below that of base
    assert model.config.eos_token_id == 256


def test_transformers_can_generate_with_what_was_loaded(variables, tmp_path):
    original = tiny_whisper(vocab_size=51865, max_target_positions=16)
    write_ct2(tmp_path, model_bin(ct2_variables(original)))
    model, tokenizer, generation = load_ctranslate2(tmp_path)
    assert generation.is_multilingual
    assert generation.lang_to_id == {"<|en|>": 258, "<|be|>": 259, "<|ro|>": 260, "<|haw|>": 261}
    assert generation.task_to_id == {"transcribe": 263, "translate": 262}
    out = model.generate(
        torch.zeros(1, 80, 40),
        language="be",
        return_dict_in_generate=True,
        force_unique_generate_call=True,
        max_new_tokens=2,
    )
    assert out.sequences[0, :4].tolist() == [257, 259, 263, 267]
    assert tokenizer.convert_ids_to_tokens(259) == "<|be|>"


def changed(variables, **by_name):
    """The variables with some replaced (or dropped where None); ``__`` stands for ``/``."""
    made = dict(variables)
    for name, values in by_name.items():
        name = name.replace("__", "/")
        if values is None:
            del made[name]
        else:
            made[name] = values
    return made


WRONG = {
    "missing variable": lambda v: model_bin(changed(v, encoder__conv1__bias=None)),
    "no layers": lambda v: model_bin({"decoder/embeddings/weight": np.ones((3, 4), np.float32)}),
    "no variables": lambda v: model_bin({}, ()),
    "foreign variable": lambda v: model_bin(changed(v, gate__weight=np.ones((2, 2), np.float32))),
    "layer beyond a gap": lambda v: model_bin(
        changed(v, encoder__layer_7__ffn__linear_0__bias=np.ones(24, np.float32))
    ),
    "wrong shape": lambda v: model_bin(changed(v, encoder__conv1__bias=np.ones(17, np.float32))),
    "wrong rank": lambda v: model_bin(changed(v, decoder__embeddings__weight=np.ones(3, "f4"))),
    "vocabulary below the tokenizer": lambda v: model_bin(
        changed(v, decoder__embeddings__weight=np.ones((300, 16), np.float32))
    ),
    "odd stack": lambda v: model_bin(
        changed(v, encoder__layer_0__self_attention__linear_0__bias=np.ones(47, np.float32))
    ),
    "key bias": lambda v: model_bin(
        changed(v, encoder__layer_0__self_attention__linear_0__bias=np.ones(48, np.float32))
    ),
    "another projection": lambda v: model_bin(
        changed(v, decoder__projection__weight=np.ones((1800, 16), np.float32)), ()
    ),
    "heads that do not divide": lambda v: model_bin(
        changed(v, encoder__num_heads=np.array(3, np.int16))
    ),
    "no heads": lambda v: model_bin(changed(v, decoder__num_heads=np.array(0, np.int16))),
    "another activation": lambda v: model_bin(changed(v, decoder__activation=np.array(0, np.int8))),
    "integers without scale": lambda v: model_bin(
        changed(v, encoder__layer_0__ffn__linear_0__weight=np.ones((24, 16), np.int8))
    ),
    "scale of zero": lambda v: model_bin(
        changed(
            v,
            encoder__layer_0__ffn__linear_0__weight=np.ones((24, 16), np.int8),
            encoder__layer_0__ffn__linear_0__weight_scale=np.zeros(24, np.float32),
        )
    ),
    "scale of another shape": lambda v: model_bin(
        changed(
            v,
            encoder__layer_0__ffn__linear_0__weight=np.ones((24, 16), np.int8),
            encoder__layer_0__ffn__linear_0__weight_scale=np.ones(16, np.float32),
        )
    ),
    "alias of nothing": lambda v: model_bin(v, (("decoder/projection/weight", "nothing"),)),
    "alias over a variable": lambda v: model_bin(
        v, (("encoder/conv1/bias", "encoder/conv2/bias"),)
    ),
    "bytes at the end": lambda v: model_bin(v) + b"\0",
    "version 5": lambda v: model_bin(v, version=5),
    "a translation model": lambda v: model_bin(v, spec="TransformerSpec"),
    "empty": lambda v: b"",
    "pickle": lambda v: pickle.dumps({"a": [1, 2, 3] * 100}),
    "zip, as torch.save writes": lambda v: b"PK\3\4" + bytes(100),
    "text": lambda v: b"not a model\n" * 100,
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_give_one_sentence(variables, tmp_path, case):
    write_ct2(tmp_path, WRONG[case](variables))
    with pytest.raises(CheckpointError) as caught:
        load_ctranslate2(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "\n" not in message and len(message) < 400


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"suppress_ids": "all"},
        {"suppress_ids": [10**9]},
        {"suppress_ids_begin": [1.5]},
        {"lang_ids": [[1]]},
        {"alignment_heads": [[0, 99]]},
        {"alignment_heads": [3]},
    ],
)
def test_wrong_settings_give_one_sentence(variables, tmp_path, wrong):
    data = model_bin(ct2_variables(tiny_whisper(vocab_size=51865)))
    write_ct2(tmp_path, data, wrong)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_ctranslate2(tmp_path)


@pytest.mark.parametrize("file", ["model.bin", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, "", "{", '{"added_tokens": []}'])
def test_missing_or_broken_files_are_named(folder, tmp_path, file, content):
    if file == "config.json" and content == '{"added_tokens": []}':
        content = "[]"
    for other in ("model.bin", "config.json", "tokenizer.json"):
        if other != file:
            (tmp_path / other).symlink_to(folder / other)
        elif content is not None:
            (tmp_path / other).write_text(content)
    with pytest.raises(CheckpointError) as caught:
        load_ctranslate2(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert file in str(caught.value)


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    for file in ("model.bin", "config.json"):
        (tmp_path / file).symlink_to(folder / file)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        if token["content"] == "<|notimestamps|>":
            token["content"] = "<s>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match="not Whisper's"):
        load_ctranslate2(tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A short file with everything in it, and a place to write damaged copies to."""
    variables = {
        "a/weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a/bias": np.arange(2, dtype=np.float16),
        "b": np.array(3, np.int8),
        "c": np.arange(12, dtype=np.int16).reshape(2, 3, 2),
    }
    return model_bin(variables, (("d", "a/weight"),)), tmp_path_factory.mktemp("small") / "m.bin"


def test_a_cut_at_any_byte_is_noticed(small):
    data, path = small
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(CheckpointError, match=r"m\.bin"):
            read_model_bin(path)


@pytest.mark.parametrize("word", [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80"])
def test_absurd_lengths_anywhere_allocate_nothing(small, word):
    data, path = small
    tracemalloc.start()
    for offset in range(len(data) - 4):
        path.write_bytes(data[:offset] + word + data[offset + 4 :])
        try:
            read = read_model_bin(path)
        except CheckpointError:
            continue
        assert sum(a.nbytes for a in read.values()) <= 2 * len(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_random_damage_raises_nothing_else(small, data):
    content, path = small
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(damaged)))
        end = start + data.draw(st.integers(0, 8))
        damaged[start:end] = data.draw(st.binary(max_size=8))
    path.write_bytes(damaged)
    try:
        read_model_bin(path)
    except CheckpointError as error:
        assert "\n" not in str(error)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_random_files_after_a_true_header_raise_nothing_else(small, tail):
    _, path = small
    header = struct.pack("<IH", 6, 12) + b"WhisperSpec\0"
    path.write_bytes(header + tail)
    try:
        read_model_bin(path)
    except CheckpointError as error:
        assert "\n" not in str(error)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_model_gives_a_model_or_one_sentence(folder, small, data):
    """The whole way, not the reader only: shapes, counts and settings may be damaged too."""
    content = bytearray((folder / "model.bin").read_bytes())
    damaged = small[1].parent / "model"
    damaged.mkdir(exist_ok=True)
    for file in ("config.json", "tokenizer.json"):
        (damaged / file).write_bytes((folder / file).read_bytes())
    offset = data.draw(st.integers(0, len(content) - 1))
    content[offset] = data.draw(st.integers(0, 255))
    (damaged / "model.bin").write_bytes(content)
    try:
        load_ctranslate2(damaged)
    except CheckpointError as error:
        assert "\n" not in str(error)


def test_a_huge_layer_index_costs_nothing(variables, tmp_path):
    many = {f"encoder/layer_{i}/ffn/linear_0/weight": np.ones((1, 1), "f4") for i in range(5000)}
    write_ct2(tmp_path, model_bin({**many, **variables}))
    with pytest.raises(CheckpointError, match="missing"):
        load_ctranslate2(tmp_path)
