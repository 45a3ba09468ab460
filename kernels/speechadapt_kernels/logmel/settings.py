"""What Whisper's features are made with (Radford et al. 2022, section 2.2)."""

WINDOW = 400  # samples of one analysis window: 25 ms
HOP = 160  # samples between frames: 10 ms
FREQUENCIES = WINDOW // 2 + 1
SILENCE = -10.0  # log10 of the floor 1e-10: what a frame without any sound gives
RANGE = 8.0  # log10 of power: what is quieter than the loudest by more is raised
