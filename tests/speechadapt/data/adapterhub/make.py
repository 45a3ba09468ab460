"""Makes the files of this folder with AdapterHub's own library: a tiny random Whisper, adapters of
every kind that can be imported, and the logits that the library computes with each of them.

    python -m venv adapterhub && adapterhub/bin/pip install torch==2.13.0 adapters==1.3.0
    adapterhub/bin/python tests/speechadapt/data/adapterhub/make.py

The library needs an environment of its own: it wants transformers 4.57.
"""

from pathlib import Path

import adapters
import torch
from adapters import AdapterPlusConfig, DoubleSeqBnConfig, ParBnConfig, SeqBnConfig
from safetensors.torch import save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration

HERE = Path(__file__).parent
CONFIGS = {
    "seq_bn": SeqBnConfig(reduction_factor=4),
    "double_seq_bn": DoubleSeqBnConfig(reduction_factor=8),
    "par_bn": ParBnConfig(reduction_factor=2),
    # the same places by other settings, and every option that has an equal
    "plus": AdapterPlusConfig(reduction_factor=4, stochastic_depth=0.0),
    "double_cross": DoubleSeqBnConfig(
        reduction_factor={"0": 2, "3": 8, "default": 4},
        cross_adapter=True,
        residual_before_ln=False,
        scaling="learned",
        leave_out=[1, 2],
        non_linearity="gelu",
        dropout=0.1,
    ),
    "par_mh": ParBnConfig(
        reduction_factor=4, mh_adapter=True, scaling=2.0, non_linearity="swish", leave_out=[2, 3]
    ),
    "seq_ln": SeqBnConfig(reduction_factor=4, ln_before=True),
}


def spread(parameters, scale: float) -> None:
    """Random values that make a visible difference."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(scale * torch.randn_like(parameter))


def main() -> None:
    """Write everything."""
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=64,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_source_positions=20,
        max_target_positions=8,
        pad_token_id=40,
        bos_token_id=40,
        eos_token_id=40,
        decoder_start_token_id=41,
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    model = WhisperForConditionalGeneration(config).eval()
    spread(model.parameters(), 0.2)
    model.save_pretrained(HERE / "base")
    adapters.init(model)
    reference = {
        "features": torch.randn(2, 80, 40),
        "tokens": torch.randint(64, (2, 6)),
    }
    for name, settings in CONFIGS.items():
        model.add_adapter(name, config=settings)
        own = [p for key, p in model.named_parameters() if f".adapters.{name}." in key]
        spread(own, 0.3)
    model.eval()  # what was added since has its dropout on
    for name in (None, *CONFIGS):
        model.set_active_adapters(name)
        with torch.no_grad():
            logits = model(reference["features"], decoder_input_ids=reference["tokens"]).logits
        reference[f"logits/{name or 'base'}"] = logits
    for name, settings in CONFIGS.items():
        folder = HERE / name
        if not settings.ln_before:
            # With the head, as the library does by default: the tied output projection.
            model.save_adapter(folder, name, use_safetensors=True)
            continue
        # The library has this normalisation under two names, which safetensors refuses.
        model.save_adapter(folder, name, with_head=False)
        tensors = torch.load(folder / "pytorch_adapter.bin", weights_only=True)
        (folder / "pytorch_adapter.bin").unlink()
        save_file({key: t.clone() for key, t in tensors.items()}, folder / "adapter.safetensors")
    save_file(reference, HERE / "reference.safetensors")


if __name__ == "__main__":
    main()
