"""Every error a user can cause.

One sentence each: what is wrong, where (file:line or utterance id), why, and what to do about it.
The command line prints that sentence and exits with 2; a traceback always means a bug of ours.
"""

from __future__ import annotations


class SpeechAdaptError(Exception):
    """Base class of all errors that speechadapt raises on purpose."""


class AudioError(SpeechAdaptError):
    """An audio file is missing, empty, cut short, not audio, or holds NaN."""


class DataError(SpeechAdaptError):
    """A data directory or manifest breaks its format."""


class FetchError(SpeechAdaptError):
    """An archive or a hub repository could not be fetched, or is not what it should be."""


class CheckpointError(SpeechAdaptError):
    """A pretrained checkpoint is missing, damaged or of an unknown kind."""


class AdapterError(SpeechAdaptError):
    """An adapter's folder, config or tensors do not fit."""


class RouteError(SpeechAdaptError):
    """A route names an adapter that is not loaded, or a form that is not supported."""


class ConfigError(SpeechAdaptError):
    """A setting is out of range, unknown, or contradicts another one."""


class OutputError(SpeechAdaptError):
    """What would be written cannot go where it should."""
