"""The attention function of every frozen model: masks of the batch, and adapters inside attention.

Leaf hooks reach neither the mask nor the softmax; transformers' registry of attention functions
does, without a change to its classes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from speechadapt.call import current

_NAME = "speechadapt"


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' SDPA attention that also hides encoder positions beyond each utterance.

    transformers passes no mask to Whisper's encoder and cross attention; the current call has it.
    Without a call, or with equal lengths and no adapter here, this is transformers' function
    unchanged.
    """
    call = current()
    if call is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    causal = bool(getattr(module, "is_causal", False))
    if not causal:
        mask = call.key_mask(query.shape[0], key.shape[2], query.device)
        attention_mask = attention_mask if mask is None else mask
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    attend, call.attend = call.attend, None
    if attend is not None:
        scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
        output = attend(query, key, attention_mask, causal, scale, output)
    return output, None


AttentionInterface.register(_NAME, attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


def use_attention(model: PreTrainedModel) -> None:
    """Make a model attend by :func:`attention`."""
    model.set_attn_implementation(_NAME)
