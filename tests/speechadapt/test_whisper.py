"""The Whisper backbone against plain transformers."""

import copy

import pytest
import torch
from conftest import tiny_whisper

from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.call import running
from speechadapt.features import Features
from speechadapt.model import SpeechModel


@pytest.fixture
def pair():
    """A plain transformers model, and a SpeechModel around a copy of it, both in float32."""
    checkpoint = tiny_whisper(torch.float32)
    plain = copy.deepcopy(checkpoint.model)
    return plain, SpeechModel(WhisperBackbone(checkpoint))


def test_route_none_is_bit_equal_to_transformers_at_30_seconds(pair, waves):
    plain, model = pair
    mel = model.backbone.features(waves, None)
    tokens = torch.tensor([[41, 42, 44, 46, 5, 6]] * 3)
    with torch.inference_mode():
        theirs = plain(input_features=mel.values, decoder_input_ids=tokens).logits
        encoded = model.encode(waves, [None] * 3, None)
        with running(model.call([None] * 3, encoded)):
            states = model.backbone.decoder_states(tokens, encoded)
            ours = model.backbone.logits(states)
    assert torch.equal(ours, theirs)


def test_mixed_lengths_give_each_utterance_what_it_gets_alone(model, waves):
    tokens = torch.tensor([[41, 42, 44, 46, 5, 6]] * 3)
    together = model.encode(waves, [None] * 3, 0.3)
    assert len(set(together.lengths.tolist())) == 3
    with torch.inference_mode(), running(model.call([None] * 3, together)):
        logits = model.backbone.logits(model.backbone.decoder_states(tokens, together))
    for row, wave in enumerate(waves):
        alone = model.encode([wave], [None], 0.3)
        length = int(alone.lengths[0])
        torch.testing.assert_close(
            together.states[row, :length], alone.states[0], rtol=1e-9, atol=1e-9
        )
        with torch.inference_mode(), running(model.call([None], alone)):
            states = model.backbone.decoder_states(tokens[:1], alone)
            expected = model.backbone.logits(states)[0]
        torch.testing.assert_close(logits[row], expected, rtol=1e-9, atol=1e-9)


def test_rows_drops_positions_nobody_uses(model, waves):
    encoded = model.encode(waves, [None] * 3, 0.3)
    part = encoded.rows(torch.tensor([1, 0]))
    assert part.states.shape[1] == int(encoded.lengths[0])
    assert torch.equal(part.lengths, encoded.lengths[[1, 0]])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("large-v3", {"num_mel_bins": 128, "encoder_layers": 3, "decoder_layers": 3}),
        ("turbo", {"num_mel_bins": 128, "encoder_layers": 3, "decoder_layers": 1}),
        ("distil", {"encoder_layers": 3, "decoder_layers": 1}),
    ],
)
def test_other_shapes_of_whisper_have_sites_and_short_context(name, changes, waves):
    model = SpeechModel(WhisperBackbone(tiny_whisper(**changes)))
    encoded = model.encode(waves, [None] * 3, 0.5)
    assert encoded.states.shape[0] == 3
    last = f"encoder.{changes['encoder_layers'] - 1}.out"
    assert last in model.backbone.sites
    assert f"decoder.{changes['decoder_layers']}.out" not in model.backbone.sites
    assert (
        sum(s.point == "cross.out" for s in model.backbone.sites.values())
        == (changes["decoder_layers"])
    )


def test_features_of_the_right_number_of_mel_bins(waves):
    backbone = WhisperBackbone(tiny_whisper(num_mel_bins=128))
    mel = backbone.features(waves[:1], 0.5)
    assert isinstance(mel, Features)
    assert mel.values.shape[1] == 128


def test_the_checksum_sees_every_tensor(model):
    before = model.checksum()
    parameters = dict(model.backbone.model.named_parameters())
    for name in list(parameters)[:: max(1, len(parameters) // 7)]:
        with torch.no_grad():
            parameters[name].view(-1)[-1] += 1e-9
            assert model.checksum() != before
            parameters[name].view(-1)[-1] -= 1e-9
