"""Writes small Whisper checkpoints in every format that can be loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import WhisperConfig, WhisperForConditionalGeneration

LANGUAGES = ("en", "be", "ro", "haw")
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{language}|>" for language in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
SETTINGS = {
    "alignment_heads": [[1, 0], [1, 1]],
    "lang_ids": [258, 259, 260, 261],
    "suppress_ids": [1, 2, 7],
    "suppress_ids_begin": [220, 256],
}


def tiny_whisper(seed: int = 0, **changes) -> WhisperForConditionalGeneration:
    """A random Whisper, float32, with no bias left at zero."""
    torch.manual_seed(seed)
    values = {
        "vocab_size": 1800,
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 40,
        "max_source_positions": 20,
        "max_target_positions": 12,
        "pad_token_id": 256,
        "bos_token_id": 256,
        "eos_token_id": 256,
        "decoder_start_token_id": 257,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }
    model = WhisperForConditionalGeneration(WhisperConfig(**(values | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def logits(model: WhisperForConditionalGeneration) -> torch.Tensor:
    """What a model answers to a fixed input, ``[2, 5, vocabulary]``."""
    config = model.config
    generator = torch.Generator().manual_seed(1)
    mel = torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions, generator=generator)
    tokens = torch.arange(10).reshape(2, 5)
    with torch.inference_mode():
        return model(input_features=mel.to(model.dtype), decoder_input_ids=tokens).logits


def write_tokenizer(folder: Path, timestamps: int = 1501) -> None:
    """A byte-level tokenizer with Whisper's control tokens, as ``tokenizer.json``."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens(
        [AddedToken(f"<|{0.02 * i:.2f}|>", special=False) for i in range(timestamps)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def ct2_variables(model: WhisperForConditionalGeneration) -> dict[str, np.ndarray]:
    """The variables that CTranslate2's converter writes for a model, float32."""
    made: dict[str, np.ndarray] = {}

    def norm(name: str, module: torch.nn.Module) -> None:
        made[f"{name}/gamma"], made[f"{name}/beta"] = (
            module.weight.detach().numpy(),
            module.bias.detach().numpy(),
        )

    def linear(name: str, *modules: torch.nn.Module) -> None:
        made[f"{name}/weight"] = np.concatenate([m.weight.detach().numpy() for m in modules])
        made[f"{name}/bias"] = np.concatenate(
            [
                np.zeros(len(m.weight), np.float32) if m.bias is None else m.bias.detach().numpy()
                for m in modules
            ]
        )

    for side in ("encoder", "decoder"):
        stack = getattr(model.model, side)
        heads = getattr(model.config, f"{side}_attention_heads")
        made[f"{side}/num_heads"] = np.array(heads, np.int16)
        made[f"{side}/position_encodings/encodings"] = stack.embed_positions.weight.detach().numpy()
        norm(f"{side}/layer_norm", stack.layer_norm)
        for index, layer in enumerate(stack.layers):
            name = f"{side}/layer_{index}"
            attention = layer.self_attn
            linear(
                f"{name}/self_attention/linear_0",
                attention.q_proj,
                attention.k_proj,
                attention.v_proj,
            )
            linear(f"{name}/self_attention/linear_1", attention.out_proj)
            norm(f"{name}/self_attention/layer_norm", layer.self_attn_layer_norm)
            if side == "decoder":
                cross = layer.encoder_attn
                linear(f"{name}/attention/linear_0", cross.q_proj)
                linear(f"{name}/attention/linear_1", cross.k_proj, cross.v_proj)
                linear(f"{name}/attention/linear_2", cross.out_proj)
                norm(f"{name}/attention/layer_norm", layer.encoder_attn_layer_norm)
            linear(f"{name}/ffn/linear_0", layer.fc1)
            linear(f"{name}/ffn/linear_1", layer.fc2)
            norm(f"{name}/ffn/layer_norm", layer.final_layer_norm)
    linear("encoder/conv1", model.model.encoder.conv1)
    linear("encoder/conv2", model.model.encoder.conv2)
    made["decoder/embeddings/weight"] = model.proj_out.weight.detach().numpy()
    made["decoder/activation"] = np.array(3, np.int8)
    made["decoder/pre_norm"] = np.array(1, np.int8)
    made["decoder/scale_embeddings"] = np.array(0, np.int8)
    made["decoder/alignment_heads"] = np.array(1, np.int16)
    return made


def int8(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Quantise the matrices as CTranslate2 does: one scale for each row."""
    made: dict[str, np.ndarray] = {}
    for name, values in variables.items():
        if values.ndim != 2 or "encodings" in name:
            made[name] = values
            continue
        scale = (127 / np.abs(values).max(axis=1)).astype(np.float32)
        made[name] = np.rint(values * scale[:, None]).astype(np.int8)
        made[f"{name}_scale"] = scale
    return made


def int16(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Quantise the matrices as CTranslate2 does: one scale for all."""
    made: dict[str, np.ndarray] = {}
    for name, values in variables.items():
        if values.ndim != 2 or "encodings" in name:
            made[name] = values
            continue
        scale = np.float32(2**10 / np.abs(values).max())
        made[name] = np.rint(values * scale).astype(np.int16)
        made[f"{name}_scale"] = np.array(scale)
    return made


def bfloat16(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cut the matrices to bfloat16; uint16 stands for it in :func:`model_bin`."""
    return {
        name: (values.view(np.uint32) >> 16).astype(np.uint16) if values.ndim == 2 else values
        for name, values in variables.items()
    }


def model_bin(
    variables: dict[str, np.ndarray],
    aliases: tuple[tuple[str, str], ...] = (
        ("decoder/projection/weight", "decoder/embeddings/weight"),
    ),
    *,
    version: int = 6,
    spec: str = "WhisperSpec",
) -> bytes:
    """The bytes of a CTranslate2 ``model.bin``."""
    codes = {"f4": 0, "i1": 1, "i2": 2, "i4": 3, "f2": 4, "u2": 5}

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    out = [struct.pack("<I", version), string(spec), struct.pack("<II", 3, len(variables))]
    for name, values in variables.items():
        raw = np.ascontiguousarray(values).tobytes()
        out += [string(name), struct.pack("<B", values.ndim)]
        out += [struct.pack("<I", size) for size in values.shape]
        out += [struct.pack("<BI", codes[values.dtype.str[1:]], len(raw)), raw]
    out.append(struct.pack("<I", len(aliases)))
    out += [string(alias) + string(target) for alias, target in aliases]
    return b"".join(out)


def write_ct2(folder: Path, data: bytes, settings: object = SETTINGS) -> Path:
    """A CTranslate2 folder around the bytes of ``model.bin``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(data)
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    write_tokenizer(folder)
    return folder


def write_transformers(folder: Path, model: WhisperForConditionalGeneration) -> Path:
    """A folder as ``save_pretrained`` writes it, with a tokenizer."""
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder
