"""What only a GPU can say: launches in a CUDA graph, with nothing read back to the host."""

import sys
from pathlib import Path

import pytest
import torch
from operating import DEVICE, adapters, each, randn

sys.path.append(str(Path(__file__).parents[2] / "kernels/bench"))
from timing import captured

from speechadapt_kernels.bottleneck.folded import fold
from speechadapt_kernels.bottleneck.operator import fused_bottleneck


@pytest.fixture
def no_waiting():
    """A call that waits for the device is an error, between ``begin`` and the test's end."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_a_graph_is_replayed_with_other_slots(monkeypatch, no_waiting, packed):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    folded = fold(each(adapters(3, 16, 128), lambda t: t.to(DEVICE)), torch.bfloat16)
    x = randn(4, 40, 128, seed=1).to(DEVICE, torch.bfloat16)
    settings = {}
    if packed:
        offsets = torch.tensor([0, 40, 47, 110, 160], dtype=torch.int32, device=DEVICE)
        x, settings = x.flatten(0, 1), {"offsets": offsets, "longest": 63}
    ids = ([0, 1, 2, 0], [2, -1, 0, 1], [-1, -1, -1, -1], [1, 1, 1, 1])
    ids = [torch.tensor(each, dtype=torch.int32, device=DEVICE) for each in ids]

    def call(slots):
        return fused_bottleneck(x, folded, slots, "gelu", 0.5, **settings)

    wanted = [call(each) for each in ids]
    slots = ids[0].clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call(slots)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(slots)
    found = []
    no_waiting()
    for each_ids in ids:
        slots.copy_(each_ids)
        graph.replay()
        found.append(out.clone())
    torch.cuda.set_sync_debug_mode("default")
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(found[2], x)


def test_a_graph_that_gives_something_else_is_not_timed():
    x, calls = torch.ones(8, device=DEVICE), []

    def changing(x):
        calls.append(1)
        return x * len(calls)

    with pytest.raises(RuntimeError, match="gives something else"):
        captured(changing, [(x,)])
    assert captured(lambda x: 2 * x, [(x,), (x,)])() > 0
