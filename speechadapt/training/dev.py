"""WER on a development set, quick enough to decide which step of a run is kept."""

from __future__ import annotations

from collections.abc import Sequence

import jiwer

from speechadapt.audio import load_audio
from speechadapt.data import Utterance
from speechadapt.decoding.search import DecodeOptions
from speechadapt.decoding.transcriber import transcribe
from speechadapt.model import SpeechModel
from speechadapt.route import Route

# Only to rank the steps of one run; reported figures come from speechadapt-eval.
_PLAIN = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.RemovePunctuation(),
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)


class DevSet:
    """A development set held in memory.

    Args:
        model: Transcribes it.
        utterances: With transcripts.
        language: For utterances that have none of their own.
        trailing_silence: Seconds after each utterance.
    """

    def __init__(
        self,
        model: SpeechModel,
        utterances: Sequence[Utterance],
        language: str | None,
        trailing_silence: float,
    ):
        self.model = model
        self.trailing_silence = trailing_silence
        self.language = language
        self.languages = {u.id: u.language for u in utterances if u.language}
        self.references = {u.id: u.text or "" for u in utterances}
        self.waves = [(u.id, load_audio(u.audio, u.start, u.end)) for u in utterances]

    def wer(self, route: Route) -> float:
        """Corpus word error rate of a greedy transcription, case and punctuation aside."""
        options = DecodeOptions(language=self.language, temperatures=(0.0,))
        hypotheses = {
            result.id: result.text
            for result in transcribe(
                self.model,
                self.waves,
                route=route,
                options=options,
                languages=self.languages,
                trailing_silence=self.trailing_silence,
                progress=False,
            )
        }
        return jiwer.wer(
            list(self.references.values()),
            [hypotheses[name] for name in self.references],
            reference_transform=_PLAIN,
            hypothesis_transform=_PLAIN,
        )
