"""What tests of operators share: devices, types, and how far apart two results are."""

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# ‖result - reference‖ / ‖reference‖ with a reference in float64 on the same rounded inputs.
MOST = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
DTYPES = [torch.float32, torch.float16]
if DEVICE.type == "cuda":
    DTYPES.append(torch.bfloat16)


def difference(result, reference):
    """Relative, over all values; NaN anywhere is infinite."""
    result, reference = (each.detach().double().cpu() for each in (result, reference))
    if not torch.isfinite(result).all():
        return float("inf")
    return float((result - reference).norm() / reference.norm().clamp(min=1e-30))


def randn(*shape, seed, dtype=torch.float64):
    """Normal numbers, the same everywhere."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)
