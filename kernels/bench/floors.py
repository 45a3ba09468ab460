"""The least time that an operator could take on a GPU, from what it must move and compute."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Machine:
    """What a GPU can do at best.

    Attributes:
        memory: Bytes a second from its memory.
        cache: Bytes a second from its L2, all SMs together.
        stream: Bytes a second that one SM can take from L2.
        sms: Number of SMs.
        flops: Of its tensor cores a second, in half precision.
        cache_size: Bytes of its L2.
    """

    memory: float
    cache: float
    stream: float
    sms: int
    flops: float
    cache_size: int


# Memory and tensor cores as measured on one; the L2 from its data sheet (64 bytes a clock and SM).
H200 = Machine(4.3e12, 5.5e12, 64 * 1.98e9, 132, 790e12, 60 << 20)


def cost(dtype: torch.dtype) -> int:
    """Half-precision operations in the time of one in ``dtype``.

    Float32 is three products in TF32, at half the speed each.
    """
    return 6 if dtype == torch.float32 else 1


@dataclass(frozen=True)
class Work:
    """What a launch must do.

    Attributes:
        read_and_written: Bytes that must cross the memory's bus once.
        flops: Multiplications and additions, in half precision (see :func:`cost`).
        programs: Of the launch; 0 = not known.
        streamed: Bytes that each program takes through L2.
    """

    read_and_written: int
    flops: int
    programs: int = 0
    streamed: float = 0.0

    def floor(self, machine: Machine) -> float:
        """Seconds below which it cannot be: the tightest of memory, L2, one SM and arithmetic."""
        waves = -(-self.programs // machine.sms)
        return max(
            self.read_and_written / machine.memory,
            self.flops / machine.flops,
            self.programs * self.streamed / machine.cache,
            waves * self.streamed / machine.stream,
        )
