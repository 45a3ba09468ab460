"""Runs of real systems: commands, a server on this machine, functions; cached and resumed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt_eval.cli.main import main
from speechadapt_eval.runs.folder import Run
from speechadapt_eval.runs.systems import http
from speechadapt_eval.transcripts.wer import score

WORDS = ("ala", "bala", "portocala", "ў шчырасці", "o broască")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data_dir(folder, count=4, lang="ro", refs=True, seed=0):
    """A Kaldi data directory of short noises; the reference of utterance i is a word."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    tables = {"wav.scp": "", "utt2lang": "", "utt2spk": "", "utt2snr": ""}
    tables |= {"text": ""} if refs else {}
    for i in range(count):
        name = f"{lang}{i:02}"
        path = folder / f"{name}.flac"
        soundfile.write(path, rng.normal(0, 0.1, 1600 + 16 * i), 16000, subtype="PCM_16")
        values = {"wav.scp": path, "utt2lang": lang, "utt2spk": f"s{i % 3}", "utt2snr": 5 * i}
        values["text"] = WORDS[i % len(WORDS)]
        for table in tables:
            tables[table] += f"{name} {values[table]}\n"
    for table, text in tables.items():
        (folder / table).write_text(text, encoding="utf-8")
    return folder


def script(path, body):
    """A shell script that logs the id of each call in ``calls`` beside it."""
    path.write_text(f'#!/bin/sh\necho "$2" >> {path.parent}/calls\n{body}\n', encoding="utf-8")
    path.chmod(0o755)
    return f"cmd:./{path.name} {{wav}} {{id}} {{lang}}"


def calls(folder):
    path = folder / "calls"
    return path.read_text().split() if path.exists() else []


def run(*options):
    return main(["run", "--out", "out", "--samples", "200", *options])


def rows(system, set_name="ro", out="out"):
    return Run.read(Path(out)).rows(system, set_name)


def failure(capsys, *options):
    assert run(*options) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("speechadapt-eval: "), said
    return said


def test_command(here, capsys):
    data_dir(here / "ro")
    asr = script(here / "asr", 'head -c 4 "$1"; printf "  ala\\r\\n%s\\n bala \\n" "$3"')
    assert run("--system", f"mine={asr}", "--set", "ro=ro") == 0
    found = rows("mine")
    assert {row.hyp for row in found.values()} == {"RIFF  ala ro bala"}  # it got a WAV; one line
    assert list(found) == ["ro00", "ro01", "ro02", "ro03"]
    last = found["ro03"]
    assert (last.ref, last.lang, last.fields["speaker"], last.fields["snr"]) == (
        "ў шчырасці", "ro", "s0", 15
    )  # fmt: skip
    assert last.fields["duration"] == pytest.approx(1648 / 16000)
    assert last.fields["seconds"] > 0
    read = Run.read(here / "out")
    took = read.decoding("mine", "ro")
    assert took.seconds == pytest.approx(sum(row.fields["seconds"] for row in found.values()))
    assert not took.batched and took.audio_seconds == pytest.approx((4 * 1600 + 16 * 6) / 16000)
    refs = {name: row.ref for name, row in found.items()}
    hyps = {name: row.hyp for name, row in found.items()}
    for line in read.table("wer"):
        rate = score(refs, hyps, unit=line["unit"])
        assert (int(line["errors"]), int(line["n_ref"])) == (rate.errors, rate.n_ref)
        assert float(line["rate"]) == rate.rate and line["speakers"] == "3"
    assert [line["unit"] for line in read.table("wer")] == ["word", "char"]
    (speed,) = read.table("speed")
    assert float(speed["rtf"]) == pytest.approx(took.seconds / took.audio_seconds)
    assert float(speed["p50"]) > 0 and speed["batched"] == "False"
    assert read.record["versions"]["python"] and read.record["seconds"] > 0
    assert "mine" in capsys.readouterr().out


def test_the_record_of_systems_names_no_user(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    data_dir(here / "ro", 1)
    script(here / "asr", "echo ala")
    assert run("--system", f"mine=cmd:{here}/asr {{wav}}", "--set", f"ro={here}/ro") == 0
    record = json.loads((here / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["systems"][0]["spec"] == "cmd:~/asr {wav}"
    assert record["sets"][0]["path"] == "~/ro"


def test_only_what_is_new_is_computed(here):
    data_dir(here / "ro")
    asr = script(here / "asr", "echo ala")
    mine = ("--system", f"mine={asr}", "--set", "ro=ro")
    assert run(*mine) == 0
    assert calls(here) == ["ro00", "ro01", "ro02", "ro03"]
    first = (here / "out/hyps/mine/ro.jsonl").read_bytes()
    took = (here / "out/hyps/mine/ro.json").read_bytes()
    assert run(*mine) == 0
    assert len(calls(here)) == 4
    assert (here / "out/hyps/mine/ro.jsonl").read_bytes() == first
    assert (here / "out/hyps/mine/ro.json").read_bytes() == took

    data_dir(here / "be", 2, "be", seed=1)
    other = script(here / "other", "echo bala")
    assert run(*mine, "--set", "be=be", "--system", f"other={other}") == 0
    assert calls(here)[4:] == ["be00", "be01", "ro00", "ro01", "ro02", "ro03", "be00", "be01"]
    assert (here / "out/hyps/mine/ro.jsonl").read_bytes() == first

    soundfile.write(here / "ro/ro01.flac", np.zeros(800), 16000)
    assert run(*mine) == 0
    assert calls(here)[12:] == ["ro01"]
    script(here / "asr", "echo portocala")  # another program under the same name
    assert run(*mine) == 0
    assert len(calls(here)) == 17
    assert run(*mine, "--cache", "elsewhere") == 0
    assert len(calls(here)) == 21


def test_the_same_sound_once_but_not_in_another_language(here):
    data_dir(here / "ro", 1)
    (here / "both.jsonl").write_text(
        "".join(
            json.dumps({"id": name, "audio": "ro/ro00.flac", "lang": lang, "noise": "babble"})
            + "\n"
            for name, lang in (("a", "ro"), ("b", "ro"), ("c", "be"), ("d", None))
        )
    )
    assert run("--system", f"mine={script(here / 'asr', 'echo $3')}", "--set", "both.jsonl") == 2
    (here / "calls").unlink()
    assert (
        run(
            *("--system", f"mine={script(here / 'asr', 'echo $3')}", "--set", "both.jsonl"),
            *("--on-error", "empty"),
        )
        == 0
    )
    found = rows("mine", "both")
    assert [row.hyp for row in found.values()] == ["ro", "ro", "be", ""]
    assert "language is not known" in found["d"].fields["error"]
    assert found["c"].fields["noise"] == "babble"
    assert calls(here) == []  # all had been computed before the first run stopped at the last


def test_killed_and_started_again(here):
    data_dir(here / "ro", 24)
    asr = script(here / "asr", 'sleep 0.05; printf "%s" "$2"')
    arguments = ["--system", f"mine={asr}", "--set", "ro=ro", "--jobs", "2", "--samples", "200"]
    command = [sys.executable, "-m", "speechadapt_eval.cli.main", "run", *arguments]
    process = subprocess.Popen([*command, "--out", "out"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(calls(here)) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.2)  # the commands that were running end by themselves
    before = len(calls(here))
    assert 8 <= before < 24
    assert not list(here.glob("out/hyps/*/*"))
    assert run(*arguments) == 0
    assert len(calls(here)) <= 24 + 3  # no more than what was running is done twice
    again = (here / "out/hyps/mine/ro.jsonl").read_bytes()
    assert main(["run", "--out", "whole", *arguments]) == 0
    assert (here / "whole/hyps/mine/ro.jsonl").read_bytes() == again
    assert again.count(b"\n") == 24
    for table in ("wer.csv", "pairs.csv"):
        whole = (here / "whole/tables" / table).read_bytes()
        assert (here / "out/tables" / table).read_bytes() == whole


def test_failures_stop_or_count_as_empty(here, capsys):
    data_dir(here / "ro")
    asr = script(here / "asr", 'test "$2" != ro02 || { echo no >&2; exit 3; }; echo ala')
    mine = ("--system", f"mine={asr}", "--set", "ro=ro")
    said = failure(capsys, *mine)
    assert "'mine' failed on 'ro02'" in said and "exit code 3: no" in said and "--on-error" in said
    assert run(*mine, "--on-error", "empty") == 0
    assert calls(here) == ["ro00", "ro01", "ro02", "ro02", "ro03"]
    out = capsys.readouterr().out
    assert out.splitlines()[2].endswith(" 1")
    found = rows("mine")
    assert found["ro02"].hyp == "" and "exit code 3" in found["ro02"].fields["error"]
    assert found["ro02"].fields["seconds"] is None and "error" not in found["ro01"].fields
    script(here / "asr", "echo ala")
    (here / "ro/ro01.flac").unlink()
    assert "ro01.flac: cannot be read" in failure(capsys, *mine)


def test_a_command_that_hangs_is_ended_with_its_children(here, capsys):
    data_dir(here / "ro", 1)
    asr = script(here / "asr", "sleep 60 & echo $! > child; wait")
    began = time.monotonic()
    said = failure(capsys, "--system", asr, "--set", "ro", "--timeout", "0.5")
    assert "took more than 0.5 s" in said and time.monotonic() - began < 20
    status = Path(f"/proc/{(here / 'child').read_text().strip()}/status")
    deadline = time.monotonic() + 5
    while status.exists() and "Z (zombie)" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_pairs_against_the_first(here, capsys):
    data_dir(here / "ro", 6)
    good = script(here / "good", "case $2 in ro00|ro05) echo ala;; *) echo bala;; esac")
    bad = script(here / "bad", "echo nimic")
    assert (
        run("--system", f"bad={bad}", "--system", f"good={good}", "--set", "ro=ro", "--json") == 0
    )
    printed = json.loads(capsys.readouterr().out)
    (pair,) = Run.read(here / "out").table("pairs")
    assert (pair["baseline"], pair["system"], pair["unit"]) == ("bad", "good", "word")
    assert float(pair["delta"]) == pytest.approx(-3 / 8)  # three of eight words
    assert float(pair["low"]) <= -3 / 8 <= float(pair["high"])
    assert printed["pairs"][0]["delta"] == float(pair["delta"])


def test_a_set_without_references_has_no_error_rate(here, capsys):
    data_dir(here / "ro", 2, refs=False)
    assert run("--system", script(here / "asr", "echo ala"), "--set", "x=ro") == 0
    assert "x has no references, so no error rate." in capsys.readouterr().out
    assert Run.read(here / "out").table("wer") == []
    assert len(Run.read(here / "out").table("speed")) == 1


def test_jobs_share_the_time_among_them(here):
    data_dir(here / "ro", 12)
    asr = script(here / "asr", "sleep 0.1; echo ala")
    began = time.monotonic()
    assert run("--system", f"mine={asr}", "--set", "ro=ro", "--jobs", "4") == 0
    took = Run.read(here / "out").decoding("mine", "ro")
    assert 12 * 0.1 / 4 <= took.seconds <= time.monotonic() - began
    assert took.batched and rows("mine")["ro00"].fields["seconds"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="the peak cannot be reset elsewhere")
def test_memory_is_that_of_the_system_not_of_the_one_before(here):
    """In a process of its own: this one takes and gives back memory of other tests meanwhile."""
    data_dir(here / "ro", 1)
    (here / "sizes.py").write_text(
        "class Big:\n    def __init__(self):\n        self.data = b'x' * 500_000_000\n"
        "    def __call__(self, path):\n        return 'ala'\n"
        "def small(path):\n    return 'ala'\n"
    )
    systems = ["--system", "big=python:sizes:Big", "--system", "small=python:sizes:small"]
    command = [sys.executable, "-m", "speechadapt_eval.cli.main", "run", *systems]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    subprocess.run([*command, "--set", "ro=ro", "--out", "out"], env=env, check=True)
    big, small = (
        Run.read(here / "out").decoding(name, "ro").peak_memory_bytes for name in ("big", "small")
    )
    assert big - small > 400_000_000


def test_what_an_earlier_run_left_is_no_part_of_the_next(here, capsys):
    data_dir(here / "ro", 2)
    asr = script(here / "asr", "echo ala")
    assert run("--system", f"a={asr}", "--set", "x=ro", "--unit", "char") == 0
    (here / "out/notes.txt").write_text("mine")
    (here / "ro/ro01.flac").unlink()
    failure(capsys, "--system", f"b={asr}", "--set", "x=ro")
    assert sorted(path.name for path in (here / "out").iterdir()) == [
        "cache", "notes.txt", "run.json", "tables"
    ]  # fmt: skip
    assert Run.read(here / "out").table("wer") == []
    assert list(Run.read(here / "out").decoded()) == []


def test_limit(here):
    data_dir(here / "ro")
    asr = script(here / "asr", "echo ala")
    assert run("--system", f"mine={asr}", "--set", "ro=ro", "--limit", "2") == 0
    assert list(rows("mine")) == ["ro00", "ro01"]
    assert run("--system", f"mine={asr}", "--set", "ro=ro") == 0
    assert calls(here) == ["ro00", "ro01", "ro02", "ro03"]


def test_energy_of_what_was_decoded_whole(here, monkeypatch):
    data_dir(here / "ro", 2)
    sampler = here / "nvidia-smi"
    sampler.write_text(
        '#!/bin/sh\ncase "$*" in\n-L) echo "GPU 0: a" ;;\n'
        '*-lms*) printf "100.0\\n300.0\\n9"; exec sleep 9 ;;\nesac\n'
    )
    (here / "slow").write_text("#!/bin/sh\nsleep 0.2\n")
    for script in (sampler, here / "slow"):
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    slow = "slow=cmd:./slow {wav}"
    assert run("--system", slow, "--set", "ro=ro", "--limit", "1") == 0
    took = Run.read(here / "out").decoding("slow", "ro")
    assert 200 * 0.2 <= took.gpu_joules <= 200 * 5
    assert run("--system", slow, "--set", "ro=ro") == 0  # one of two was known
    assert Run.read(here / "out").decoding("slow", "ro").gpu_joules is None


def test_functions(here, monkeypatch):
    data_dir(here / "ro", 2)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (here / "my_asr.py").write_text(
        "from pathlib import Path\n"
        "def of_path(path):\n    return Path(path).name\n"
        "def of_samples(samples, rate, lang=None):\n"
        "    return {'text': f'{len(samples)} {rate} {samples.dtype} {lang}', 'mos': 3, 'id': 7}\n"
        "class Loaded:\n"
        "    def __init__(self):\n        self.calls = 0\n"
        "    def __call__(self, path):\n        self.calls += 1\n        return str(self.calls)\n"
        "def wrong(path):\n    return None\n"
    )
    systems = [
        part
        for name in ("of_path", "of_samples", "Loaded")
        for part in ("--system", f"{name}=python:my_asr:{name}")
    ]
    assert run(*systems, "--set", "ro=ro") == 0
    assert [row.hyp for row in rows("of_path").values()] == ["ro00.flac", "ro01.flac"]
    row = rows("of_samples")["ro01"]
    assert (row.hyp, row.fields["mos"]) == ("1616 16000 float32 ro", 3)
    assert [row.hyp for row in rows("Loaded").values()] == ["2", "3"]  # 1 was the warm-up
    assert Run.read(here / "out").decoding("Loaded", "ro").warmup_utterances == 1
    assert Run.read(here / "out").systems[2].load_seconds is not None
    assert run("--system", "w=python:my_asr:wrong", "--set", "ro=ro", "--on-error", "empty") == 0
    assert rows("w")["ro00"].fields["error"] == "the answer is None, not a text"


BATCHED = """
class System:
    def __init__(self, argument):
        self.argument = argument
    def fingerprint(self):
        return {"argument": self.argument}
    def open(self, settings):
        return Open(self.argument)
class Open:
    facts = {"parameters": 5, "name": "no"}
    def __init__(self, argument):
        self.argument = argument
        with open("calls", "a") as log:
            log.write("opened\\n")
    def transcribe(self, clip):
        with open("calls", "a") as log:
            log.write(f"{clip.id}\\n")
        if clip.id == "ro03":
            raise ValueError("a bad clip")
        return self.argument
    def transcribe_batch(self, clips):
        with open("calls", "a") as log:
            log.write(f"batch{len(clips)}\\n")
        if any(clip.id == "ro03" for clip in clips):
            raise ValueError("a bad clip among them")
        return [self.argument] * len(clips)
    def close(self):
        with open("calls", "a") as log:
            log.write("closed\\n")
"""


@pytest.fixture
def plugin(here, monkeypatch):
    """A kind of systems that another package registers; with batches."""
    site = here / "site"
    info = site / "others-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "others_systems.py").write_text(BATCHED)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[speechadapt_eval.systems]\nothers = others_systems:System\n"
    )
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    monkeypatch.delitem(sys.modules, "others_systems", raising=False)


def test_kinds_of_other_packages_in_batches_and_one_by_one(here, plugin):
    data_dir(here / "ro", 3)
    data_dir(here / "be", 2, "be", seed=1)
    mine = ("--system", "mine=others:{lang}", "--set", "ro=ro", "--set", "be=be")
    assert run(*mine) == 0
    by_language = ["opened", "ro00", "batch3", "closed", "opened", "be00", "batch2", "closed"]
    assert calls(here) == by_language
    assert {row.hyp for row in rows("mine", "be").values()} == {"be"}
    assert {row.fields["seconds"] for row in rows("mine").values()} == {None}
    read = Run.read(here / "out")
    assert read.decoding("mine", "ro").batched and read.decoding("mine", "ro").seconds > 0
    assert (read.systems[0].parameters, read.systems[0].name) == (5, "mine")
    assert read.table("speed")[0]["p50"] == "" and float(read.table("speed")[0]["rtf"]) > 0
    assert run(*mine) == 0
    assert len(calls(here)) == 8

    assert run(*mine, "--one-by-one") == 0
    alone = ["opened", "ro00", "ro00", "ro01", "ro02", "closed"]
    alone += ["opened", "be00", "be00", "be01", "closed"]
    assert calls(here)[8:] == alone
    assert all(row.fields["seconds"] > 0 for row in rows("mine").values())
    assert float(Run.read(here / "out").table("speed")[0]["p99"]) > 0
    assert run(*mine) == 0  # what was timed alone serves as well
    assert len(calls(here)) == 8 + len(alone)
    (here / "calls").unlink()
    assert run("--system", "mine=others:any", *mine[2:]) == 0
    assert calls(here) == ["opened", "ro00", "batch3", "batch2", "closed"]  # one for both sets
    read = Run.read(here / "out")
    assert [read.decoding("mine", s).warmup_utterances for s in ("ro", "be")] == [1, 0]


def test_one_bad_clip_does_not_spoil_its_batch(here, plugin):
    data_dir(here / "ro", 5)
    assert run("--system", "m=others:x", "--set", "ro=ro", "--on-error", "empty") == 0
    assert [row.hyp for row in rows("m").values()] == ["x", "x", "x", "", "x"]
    assert "a bad clip" in rows("m")["ro03"].fields["error"]


class Server(ThreadingHTTPServer):
    """Answers as OpenAI's endpoint does: the text is made of what came."""

    def __init__(self, statuses=()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses, self.requests, self.lock = list(statuses), [], threading.Lock()
        self.now = self.most = 0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = f"Content-Type: {self.headers['Content-Type']}\n\n".encode()
        message: EmailMessage = BytesParser().parsebytes(head + body)
        fields = {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in message.get_payload()
        }
        with server.lock:
            server.now += 1
            server.most = max(server.most, server.now)
            server.requests.append((self.path, self.headers.get("Authorization"), fields))
            status = server.statuses.pop(0) if server.statuses else 200
        time.sleep(0.02)
        text = f"{fields['model'].decode()}\n{fields.get('language', b'none').decode()}"
        answer = {200: {"text": text}, 201: {}}.get(status, {"error": "no such thing"})
        data = json.dumps(answer).encode()
        with server.lock:
            server.now -= 1
        self.send_response(200 if status == 201 else status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextmanager
def serving(*statuses):
    with Server(statuses) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server, f"http:http://127.0.0.1:{server.server_port}/v1?model=m1"
        finally:
            server.shutdown()
            thread.join(10)


def test_server(here, monkeypatch):
    monkeypatch.setattr(http, "_FIRST_PAUSE", 0.01)
    monkeypatch.setenv("MY_KEY", "secret")
    data_dir(here / "ro", 6)
    with serving(429, 500, 503) as (server, address):
        spec = f"srv={address}&prompt=a%20b&key=MY_KEY"
        assert run("--system", spec, "--set", "ro=ro", "--jobs", "3") == 0
        assert {row.hyp for row in rows("srv").values()} == {"m1 ro"}
        assert len(server.requests) == 3 + 1 + 6  # refused, the warm-up, the clips
        assert server.most > 1
        path, key, fields = server.requests[-1]
        assert (path, key) == ("/v1/audio/transcriptions", "Bearer secret")
        assert (fields["prompt"], fields["response_format"]) == (b"a b", b"json")
        sounds = {path.read_bytes() for path in (here / "ro").glob("*.flac")}
        assert {fields["file"] for _, _, fields in server.requests} == sounds
        assert "key" not in fields and "secret" not in (here / "out/run.json").read_text()
        assert run("--system", spec, "--set", "ro=ro") == 0
        assert len(server.requests) == 10
        assert run("--system", f"{spec}#new-model", "--set", "ro=ro", "--limit", "1") == 0
        assert len(server.requests) == 12


def test_server_that_refuses(here, monkeypatch, capsys):
    monkeypatch.setattr(http, "_FIRST_PAUSE", 0.01)
    data_dir(here / "ro", 3)
    with serving(200, 200, 415, 201, 200) as (_, address):
        assert run("--system", f"s={address}", "--set", "ro=ro", "--on-error", "empty") == 0
    errors = [row.fields.get("error") for row in rows("s").values()]
    assert errors[0] is None and "status 415: " in errors[1] and "has no 'text'" in errors[2]
    with serving(*[500] * 10) as (_, address):
        assert "status 500, 5 times" in failure(capsys, "--system", address, "--set", "ro")
    with serving(401) as (_, address):
        options = ("--system", address, "--set", "ro", "--on-error", "empty")
        assert "answers with status 401" in failure(capsys, *options)
    said = failure(capsys, *options)  # the server has gone
    assert "cannot be reached" in said and "start the server" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--system", "nothing"], "write KIND:ARGUMENT"),
        (["--system", "voice:x"], "unknown kind 'voice': choose one of cmd, faster-whisper, http"),
        (["--system", "a/b=cmd:true {wav}"], "use a name such as 'a-b'"),
        (["--system", "a=cmd:cat {wav}", "--system", "A=cmd:cp {wav}"], "two systems are called"),
        (["--system", "cmd:cat"], "neither {wav} nor {audio}"),
        (["--system", "cmd:./none {wav}"], "there is no program './none'"),
        (["--system", "cmd:'cat {wav}"], "No closing quotation"),
        (["--system", "http:ftp://x"], "no address"),
        (["--system", "http:http://x/v1?key=NO_SUCH_KEY"], "'NO_SUCH_KEY'"),
        (["--system", "http:http://me:secret@x/v1"], "use &key=NAME"),
        (["--system", "python:json"], "write python:module:function"),
        (["--system", "python:no_such_module:f"], "there is no module 'no_such_module'"),
        (["--system", "python:no_such.module:f"], "No module named 'no_such'"),
        (["--system", "python:json:nothing"], "is not there or no function"),
        (["--system", "python:operator:setitem"], "takes 3 parameters"),
        (["--system", "faster-whisper:."], "has no model.bin"),
        (["--system", "python:{lang}:f", "--set", "mixed.jsonl"], "the language of the set"),
        (["--set", "none"], "none is not there"),
        (["--set", "empty"], "has no wav.scp"),
        (["--set", "x=./ro", "--set", "X=ro"], "is called 'X' as well"),
        (["--set", "a:b=ro"], "use a name such as 'a-b'"),
        (["--timeout", "0"], "--timeout 0"),
        (["--out", "ro"], "holds something that is no run"),
        (["--out", "ro/text"], "is no folder"),
        (["--cache", "ro/text"], "cannot use ro/text/cache.sqlite"),
    ],
)
def test_mistakes_are_one_sentence(here, capsys, options, message):
    data_dir(here / "ro", 1)
    (here / "empty").mkdir()
    (here / "mixed.jsonl").write_text(
        '{"id": "a", "audio": "ro/ro00.flac", "lang": "a"}\n'
        '{"id": "b", "audio": "ro/ro00.flac", "lang": "b"}\n'
    )
    options = options if "--system" in options else ["--system", "cmd:cat {wav}", *options]
    options = options if "--set" in options else [*options, "--set", "ro"]
    assert message in failure(capsys, *options)
    assert not (here / "out/hyps").exists()


def test_a_damaged_cache_is_named(here, capsys):
    data_dir(here / "ro", 1)
    mine = ("--system", script(here / "asr", "echo ala"), "--set", "ro")
    assert run(*mine) == 0
    capsys.readouterr()
    (here / "out/cache/cache.sqlite").write_bytes(b"nothing like a database" * 100)
    assert "cache.sqlite: file is not a database; remove it" in failure(capsys, *mine)
