"""The error on a development set, quick enough to decide which step of a run is kept.

It only ranks the steps of one run; reported figures come from speechadapt-eval.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import jiwer
import numpy as np
import torch
from sklearn.metrics import average_precision_score

from speechadapt.audio import load_audio
from speechadapt.call import running
from speechadapt.data import Utterance
from speechadapt.decoding.classify import Labels, Score, classify
from speechadapt.decoding.search import DecodeOptions
from speechadapt.decoding.transcriber import transcribe
from speechadapt.errors import DataError
from speechadapt.model import SpeechModel
from speechadapt.progress import progress
from speechadapt.route import Route
from speechadapt.training.config import TrainConfig
from speechadapt.training.examples import Batch, TrainingSet
from speechadapt.training.objectives.features import FeaturesObjective

A = TypeVar("A", Labels, Score)

_PLAIN = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.RemovePunctuation(),
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)


class DevSet(Protocol):
    """A development set held in memory.

    Attributes:
        metric: What its error is called; logs say ``dev_<metric>``.
    """

    metric: str

    def error(self, routes: Sequence[Route]) -> float:
        """The error with these routes, one for each utterance; lower is better."""
        ...


class TextDev:
    """Word error rate.

    Args:
        model: Transcribes it.
        utterances: With transcripts.
        language: For utterances that have none of their own.
        trailing_silence: Seconds after each utterance.

    Raises:
        DataError: An utterance has no transcript.
    """

    metric = "wer"

    def __init__(
        self,
        model: SpeechModel,
        utterances: Sequence[Utterance],
        language: str | None,
        trailing_silence: float,
    ):
        for utterance in utterances:
            if utterance.text is None:
                raise DataError(
                    f"utterance {utterance.id}: no transcript; a development set needs them all"
                )
        self.model = model
        self.trailing_silence = trailing_silence
        self.language = language
        self.languages = {u.id: u.language for u in utterances if u.language}
        self.references = {u.id: u.text or "" for u in utterances}
        self.waves = _waves(utterances)

    def error(self, routes: Sequence[Route]) -> float:
        """Corpus word error rate of a greedy transcription, case and punctuation aside."""
        options = DecodeOptions(language=self.language, temperatures=(0.0,))
        hypotheses = {
            result.id: result.text
            for result in transcribe(
                self.model,
                self.waves,
                route=None,
                routes=dict(zip(self.references, routes, strict=True)),
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


class LabelDev:
    """Share of utterances with the wrong label; where several may be true, 1 less the mean average
    precision of the labels, which asks for no threshold (Gemmeke et al. 2017, *Audio Set*).

    Args:
        model: Labels it.
        utterances: The set.
        labels: Of each utterance, by id.
        multi_label: Whether several may be true.
        trailing_silence: Seconds after each utterance.
    """

    def __init__(
        self,
        model: SpeechModel,
        utterances: Sequence[Utterance],
        labels: Mapping[str, tuple[str, ...]],
        multi_label: bool,
        trailing_silence: float,
    ):
        self.metric = "map_error" if multi_label else "error_rate"
        self.model, self.labels, self.multi_label = model, labels, multi_label
        self.trailing_silence = trailing_silence
        self.waves = _waves(utterances)

    def error(self, routes: Sequence[Route]) -> float:
        """From 0 to 1."""
        found = _answers(Labels, self.model, self.waves, routes, self.trailing_silence)
        if not self.multi_label:
            wrong = [next(iter(f.probabilities)) not in self.labels[f.id] for f in found]
            return sum(wrong) / len(wrong)
        precisions = []
        for label in found[0].probabilities:
            truth = np.array([label in self.labels[f.id] for f in found])
            if truth.any():  # of a label that is nowhere, nothing can be said
                scores = np.array([f.probabilities[label] for f in found])
                precisions.append(average_precision_score(truth, scores))
        return 1.0 - sum(precisions) / len(precisions) if precisions else 1.0


class ValueDev:
    """Mean squared error, in the values' own unit.

    Args:
        model: Says the values.
        utterances: The set.
        values: Of each utterance, by id.
        trailing_silence: Seconds after each utterance.
    """

    metric = "mse"

    def __init__(
        self,
        model: SpeechModel,
        utterances: Sequence[Utterance],
        values: Mapping[str, float],
        trailing_silence: float,
    ):
        self.model, self.values, self.trailing_silence = model, values, trailing_silence
        self.waves = _waves(utterances)

    def error(self, routes: Sequence[Route]) -> float:
        """Of the set as a whole."""
        found = _answers(Score, self.model, self.waves, routes, self.trailing_silence)
        return float(np.mean([(f.value - self.values[f.id]) ** 2 for f in found]))


class FeaturesDev:
    """The objective's own loss, with noise that is the same at every evaluation.

    Args:
        model: In whose bank the adapter is.
        objective: Whose loss.
        utterances: The set.
        config: Noise and trailing silence of the run.
    """

    metric = "loss"

    def __init__(
        self,
        model: SpeechModel,
        objective: FeaturesObjective,
        utterances: Sequence[Utterance],
        config: TrainConfig,
    ):
        self.model, self.objective = model, objective
        noise = replace(config.augmentation, speed=(), time_masks=0, frequency_masks=0)
        config = replace(config, augmentation=noise)
        examples = TrainingSet(model.backbone, utterances, config, objective.listener)
        rng = random.Random(f"{config.seed}/dev")
        with progress(range(len(utterances)), desc="dev", unit="utt", leave=False) as bar:
            self.batches: list[Batch] = [examples.batch([index], rng) for index in bar]

    @torch.inference_mode()
    def error(self, routes: Sequence[Route]) -> float:
        """Mean over the utterances."""
        total = 0.0
        for batch, route in zip(self.batches, routes, strict=True):
            with running(self.model.bank.call([route])):
                encoded = self.model.backbone.encode(batch.heard)
                total += float(self.objective.loss(encoded, self.objective.targets(batch)))
        return total / len(self.batches)


def _answers(
    kind: type[A],
    model: SpeechModel,
    waves: Sequence[tuple[str, np.ndarray]],
    routes: Sequence[Route],
    trailing_silence: float,
) -> list[A]:
    """Of the head in training, which gives answers of one kind."""
    own = dict(zip((name for name, _ in waves), routes, strict=True))
    said = classify(model, waves, routes=own, trailing_silence=trailing_silence)
    found = [answer for answer in said if isinstance(answer, kind)]
    assert len(found) == len(waves)
    return found


def _waves(utterances: Sequence[Utterance]) -> list[tuple[str, np.ndarray]]:
    return [(u.id, load_audio(u.audio, u.start, u.end)) for u in utterances]
