"""``http:http://host:port/v1?model=…``: a server with OpenAI's transcription endpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2

from speechadapt_eval.errors import EvalError
from speechadapt_eval.runs.clips import Clip
from speechadapt_eval.runs.systems.protocol import Settings, SystemDown

TRIES = 5
_FIRST_PAUSE = 0.5  # seconds; doubled after each try
_LONGEST_PAUSE = 30.0
_WRONG_PLACE = (401, 403, 404, 405)  # the same for every clip
_TYPES = {
    "flac": "audio/flac", "mp3": "audio/mpeg", "ogg": "audio/ogg", "wav": "audio/wav"
}  # fmt: skip


class Http:
    """Requests to ``URL/audio/transcriptions``.

    The parameters of the address become fields of each request (``model``, ``prompt``,
    ``temperature``, …), but for ``key``: the name of the environment variable with the API key.
    ``language`` is that of the clip unless one is given; an empty one sends none. What follows a
    ``#`` is not sent: change it when the server's model changes, so that nothing cached is used.

    Args:
        argument: The address, as a client of OpenAI would have it: up to ``/v1``.

    Raises:
        EvalError: It is no address, or the variable with the key is empty.
    """

    def __init__(self, argument: str):
        url = urlsplit(argument)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise EvalError(
                f"http:{argument}: no address; write http:http://HOST:PORT/v1?model=NAME"
            )
        if url.username or url.password:
            raise EvalError(
                "http: the address holds a user or password, which would be written into run.json: "
                "use &key=NAME, the name of an environment variable with the API key"
            )
        self._argument = argument
        self._fields = dict(parse_qsl(url.query, keep_blank_values=True))
        self._key_name = self._fields.pop("key", "")
        if self._key_name and not os.environ.get(self._key_name):
            raise EvalError(
                f"http:{argument}: the environment variable {self._key_name!r}, which is to hold "
                "the API key, is empty"
            )
        self._address = url._replace(
            path=url.path.rstrip("/") + "/audio/transcriptions", query="", fragment=""
        ).geturl()

    def fingerprint(self) -> Mapping[str, Any]:
        """The address; what the server runs can not be seen from here."""
        return {"address": self._argument}

    def open(self, settings: Settings) -> OpenHttp:
        """Open connections as they are needed."""
        key = os.environ.get(self._key_name) if self._key_name else None
        return OpenHttp(self._address, self._fields, key, settings)


class OpenHttp:
    """Connections to a server."""

    concurrent = True
    remote = True
    warmup = 1

    def __init__(self, address: str, fields: dict[str, str], key: str | None, settings: Settings):
        self.facts: Mapping[str, Any] = {}
        self._address, self._fields = address, fields
        limits = httpx2.Limits(max_connections=settings.jobs)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(timeout=settings.timeout, limits=limits, headers=headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def transcribe(self, clip: Clip) -> str:
        """Send one clip; tries again while the server is busy or fails.

        Raises:
            RuntimeError: The server does not take this clip.
            SystemDown: The server is not there, or refuses everything.
        """
        fields = {"response_format": "json"} | self._fields
        if clip.lang and "language" not in fields:
            fields["language"] = clip.lang
        fields = {name: value for name, value in fields.items() if value or name != "language"}
        data = clip.data()
        name, kind = _name_and_type(data)
        for left in reversed(range(TRIES)):
            try:
                response = self._client.post(
                    self._address, data=fields, files={"file": (name, data, kind)}
                )
            except httpx2.TimeoutException as error:
                if not left:
                    raise RuntimeError(f"no answer in time, {TRIES} times") from error
                response = None
            except httpx2.TransportError as error:
                if not left:
                    raise SystemDown(
                        f"{self._address} cannot be reached ({error}), {TRIES} times: start the "
                        "server, or correct the address; what is done is kept"
                    ) from error
                response = None
            if response is not None and not _busy(response.status_code):
                return self._text(response)
            if left:
                time.sleep(_pause(response, TRIES - 1 - left))
        assert response is not None
        raise RuntimeError(f"status {response.status_code}, {TRIES} times: {_said(response)}")

    def _text(self, response: httpx2.Response) -> str:
        if response.status_code in _WRONG_PLACE:
            raise SystemDown(
                f"{self._address} answers with status {response.status_code} ({_said(response)}): "
                "correct the address or the key"
            )
        if response.status_code != 200:
            raise RuntimeError(f"status {response.status_code}: {_said(response)}")
        if self._fields.get("response_format") == "text":
            return response.text
        try:
            text = response.json()["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise RuntimeError(f"the answer has no 'text': {_said(response)}")
        return text


def _busy(status: int) -> bool:
    return status == 429 or status >= 500


def _pause(response: httpx2.Response | None, tried: int) -> float:
    """Seconds until the next try: what the server asks for, else longer each time."""
    asked = "" if response is None else response.headers.get("retry-after", "")
    seconds = float(asked) if asked.isdecimal() else _FIRST_PAUSE * 2**tried
    return min(seconds, _LONGEST_PAUSE)


def _said(response: httpx2.Response) -> str:
    return " ".join(response.text.split())[:200] or "nothing more"


def _name_and_type(data: bytes) -> tuple[str, str]:
    """A file name that tells the format, which some servers go by."""
    if data[:4] == b"fLaC":
        suffix = "flac"
    elif data[:4] == b"OggS":
        suffix = "ogg"
    elif data[:3] == b"ID3" or data[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):
        suffix = "mp3"
    else:
        suffix = "wav"
    return f"clip.{suffix}", _TYPES[suffix]
