"""Music on hold: five pieces for mixtures (``asterisk-moh-opsound-wav``, CC-BY-SA-3.0).

The recordings are telephone quality (8 kHz), so nothing is above 4 kHz. Pieces are kept apart
whole, and artists with them: two for testing, the rest for training.
"""

from __future__ import annotations

from pathlib import Path

from speechadapt.data import Utterance
from speechadapt.fetch import Archive
from speechadapt_recipes.corpora.common import Clip, Sizes, preparing, unpacked, write_corpus

ARCHIVE = Archive(
    name="asterisk-moh-opsound-wav_2.03-1.1_all.deb",
    sha256="8f9d808a729d305c2d3343993f21ca5e6829e411682618dc8ea7aa8bc24a566c",
    kind="deb",
    package="asterisk-moh-opsound-wav",
    version="2.03-1.1",
    licence="CC-BY-SA-3.0",
    size=13_969_212,
)
TEST_ARTISTS = ("manolo_camp", "reno_project")
LICENCE = f"{ARCHIVE.licence}: music of {{}}, {ARCHIVE.package} {ARCHIVE.version}\n"


def prepare(folder: Path, downloads: Path, archives: Path | None = None, nj: int = 2) -> Sizes:
    """Write ``folder/{train,test}`` data directories without transcripts.

    Args:
        folder: Where to.
        downloads: Where archives are kept and unpacked.
        archives: Folder of archives fetched by hand.
        nj: Parallel threads.

    Raises:
        FetchError: The archive cannot be had.
    """
    clips = select(unpacked(ARCHIVE, downloads, archives) / "usr/share/asterisk/moh")
    artists = sorted({clip.utterance.id.split("-")[1] for clip in clips})
    licence, splits = LICENCE.format(", ".join(artists)), ("train", "test")
    with preparing(folder, ARCHIVE):
        return write_corpus(
            folder, folder / "flac", clips, licence, "music", nj, splits=splits, label="music"
        )


def select(pieces: Path) -> list[Clip]:
    """Files named ``ARTIST-TITLE.wav``."""
    return [
        Clip(
            Utterance(f"music-{piece.stem}", str(piece)),
            "test" if piece.stem.partition("-")[0] in TEST_ARTISTS else "train",
        )
        for piece in sorted(pieces.glob("*.wav"))
    ]
