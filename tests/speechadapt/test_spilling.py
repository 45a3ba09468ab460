"""Adapters moved out of the way: who goes first, and that nothing else changes."""

import dataclasses
import threading
from pathlib import Path

import torch
from adapting import add

from speechadapt.adapters.registry import PRESETS


def states(model, waves, routes):
    return model.encode(waves, routes, 0.3).states


def test_the_least_recently_used_go_first(model, waves):
    config = dataclasses.replace(PRESETS["pfeiffer"], bottleneck=8)
    names = ["a", "b", "c", "d"]
    for seed, name in enumerate(names):
        add(model, name, config, seed)
    one = model.bank["a"].bytes
    assert one == sum(t.numel() * 8 for _, t in model.bank["a"].named_tensors())
    assert model.bank.resident_bytes == 4 * one
    before = {name: states(model, waves[:1], [name]) for name in ("c", "a", "d")}
    assert model.bank.spill(4 * one) == []
    assert model.bank.spill(3 * one) == ["b"]  # never used
    assert model.bank.spill(3 * one - 1) == ["c"]
    assert model.bank.resident_bytes == 2 * one
    assert model.bank.spill(0) == ["a", "d"]
    assert model.bank.resident_bytes == 0
    for name, expected in before.items():
        torch.testing.assert_close(states(model, waves[:1], [name]), expected, atol=1e-12, rtol=0)
    mixed = states(model, waves, ["a", "c", "d"])
    assert torch.isfinite(mixed).all()


def test_what_is_in_training_stays_and_calls_keep_what_they_have(model):
    adapter = add(model, "a", PRESETS["lora"])
    adapter.train()
    assert model.bank.spill(0) == []
    adapter.train(False)
    call = model.bank.call(["a"])
    assert model.bank.spill(0) == ["a"]
    assert call.adapters == (adapter,) and model.bank["a"] is not adapter
    assert model.bank["a"].spilled and not adapter.spilled


def test_nothing_is_left_on_the_disk(model, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    add(model, "a", PRESETS["lora"])
    model.bank.spill(0)
    assert list(tmp_path.iterdir()) == []
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert f"{tmp_path}/speechadapt-" in maps.read_text()


def test_spilling_while_others_run(model, waves):
    names = ["a", "b", "c"]
    for seed, name in enumerate(names):
        add(model, name, PRESETS["lora"], seed)
    expected = {name: states(model, waves[:1], [name]) for name in names}
    wrong = []

    def work(name):
        for _ in range(15):
            got = states(model, waves[:1], [name])
            if not torch.allclose(got, expected[name], atol=1e-12, rtol=0):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        model.bank.spill(0)
        for seed, name in enumerate(names):
            add(model, name, PRESETS["lora"], seed)
    assert wrong == []


def test_several_threads_add_at_once(model):
    """No adapter is lost between two writers."""
    config = dataclasses.replace(PRESETS["adapter_bias"], top_layers=1)

    def work(start):
        for index in range(start, start + 25):
            add(model, f"a{index}", config, effect=False)

    threads = [threading.Thread(target=work, args=(25 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {adapter.name for adapter in model.bank} == {f"a{index}" for index in range(100)}
