"""Alignments against sclite, Kaldi's aligners and their definitions, written out plainly."""

import json
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError, score
from speechadapt_eval.transcripts import align as module
from speechadapt_eval.transcripts.align import aligned
from speechadapt_eval.transcripts.details import trn_lines

FIXTURE = Path(__file__).parent / "fixtures" / "scores.json"  # made by make_scores.py there
SCLITE = Path("/usr/lib/sctk/bin/sclite")
TOKENS = st.lists(st.sampled_from("abcd"), max_size=9)


def corpora():
    return json.loads(FIXTURE.read_text(encoding="utf-8")).items()


def sides(pairs):
    """References and hypotheses; names sort as the pairs do."""
    return tuple({f"s-{n:04d}": pair[side] for n, pair in enumerate(pairs)} for side in (0, 1))


def compute_wer(ref, hyp):
    """Substitutions, deletions, insertions as Kaldi's recursion with counts decides."""
    row = [(i, (0, i, 0)) for i in range(len(ref) + 1)]  # cost, counts
    for word in hyp:
        cost, (s, d, i) = row[0]
        new = [(cost + 1, (s, d, i + 1))]
        for column, other in enumerate(ref, start=1):
            wrong = word != other
            insertion = row[column][0] + 1
            deletion = new[-1][0] + 1
            match = row[column - 1][0] + wrong
            if match < insertion and match < deletion:
                s, d, i = row[column - 1][1]
                new.append((match, (s + wrong, d, i)))
            elif deletion < insertion:
                s, d, i = new[-1][1]
                new.append((deletion, (s, d + 1, i)))
            else:
                s, d, i = row[column][1]
                new.append((insertion, (s, d, i + 1)))
        row = new
    return row[-1][1]


def align_text(ref, hyp):
    """Kinds of the columns as Kaldi's traceback finds them."""
    cost = [[m + n if not m or not n else 0 for n in range(len(hyp) + 1)]
            for m in range(len(ref) + 1)]  # fmt: skip
    for m in range(1, len(ref) + 1):
        for n in range(1, len(hyp) + 1):
            match = cost[m - 1][n - 1] + (ref[m - 1] != hyp[n - 1])
            cost[m][n] = min(match, cost[m - 1][n] + 1, cost[m][n - 1] + 1)
    m, n, kinds = len(ref), len(hyp), []
    while m or n:
        delete = m and (not n or cost[m][n] == cost[m - 1][n] + 1)
        if m and n and cost[m][n] == cost[m - 1][n - 1] + (ref[m - 1] != hyp[n - 1]):
            m, n = m - 1, n - 1
            kinds.append("equal" if ref[m] == hyp[n] else "substitute")
        elif delete:
            m -= 1
            kinds.append("delete")
        else:
            n -= 1
            kinds.append("insert")
    return kinds[::-1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5))
def test_kaldis_splits_are_as_defined(pairs):
    names = list(map(str, range(len(pairs))))
    for (ref, hyp), ops in zip(pairs, aligned(pairs, names, "kaldi"), strict=True):
        kinds = Counter(op.kind for op in ops)
        found = tuple(kinds[kind] for kind in ("substitute", "delete", "insert"))
        assert found == compute_wer(ref, hyp)
    for (ref, hyp), ops in zip(pairs, aligned(pairs, names, "align-text"), strict=True):
        assert [op.kind for op in ops] == align_text(ref, hyp)


@pytest.mark.parametrize("cells", [1, 300, module._CELLS])
def test_batches_change_nothing(monkeypatch, cells):
    rng = random.Random(1)
    pairs = [([*rng.choices("abc", k=rng.randrange(9))], [*rng.choices("abc", k=rng.randrange(9))])
             for _ in range(100)]  # fmt: skip
    alone = [next(aligned([pair], ["u"], "kaldi")) for pair in pairs]
    monkeypatch.setattr(module, "_CELLS", cells)
    assert list(aligned(pairs, [""] * 100, "kaldi")) == alone


@pytest.mark.parametrize(("name", "corpus"), corpora())
def test_totals_of_sclite_and_every_split_of_kaldi(name, corpus):
    refs, hyps = sides(corpus["pairs"])
    assert len(refs) >= 400
    sentences, words, hits, *split, errors, wrong = corpus["sclite"]
    for whose in module.SPLITS:
        rate = score(refs, hyps, split=whose)
        assert (len(rate.utterances), rate.n_ref, rate.errors) == (sentences, words, errors)
        assert rate.sentence_errors == wrong
    rate = score(refs, hyps, split="kaldi")
    found = [[u.substitutions, u.deletions, u.insertions] for u in rate.utterances]
    assert found == corpus["kaldi"]
    # On these sets sclite, whose substitutions cost more, splits as Kaldi does.
    assert [rate.substitutions, rate.deletions, rate.insertions] == split
    assert rate.hits == hits


@pytest.mark.skipif(not SCLITE.exists(), reason="Debian's sctk is not installed")
def test_sclite_reads_our_trn_and_counts_the_same(tmp_path):
    words = ["дом", "м'яч", "été", "łódź", "हिन्दी", "שָׁלוֹם", "straße", "i", "ко", "слова"]
    rng = random.Random(7)
    refs, hyps, speakers = {}, {}, {}
    for n in range(400):
        ref = rng.choices(words, k=rng.randrange(1, 8))
        hyp = [rng.choice(words) if rng.random() < 0.2 else w for w in ref if rng.random() > 0.1]
        name = f"{n:03d}_a"
        refs[name], hyps[name] = " ".join(ref).capitalize() + "!", " ".join(hyp)
        speakers[name] = f"spk_{n % 3}"
    for unit in ("word", "char"):
        rate = score(refs, hyps, unit=unit)
        for side in ("ref", "hyp"):
            text = "".join(trn_lines(rate, side, speakers))
            (tmp_path / side).write_text(text, encoding="utf-8")
        options = ["-r", "ref", "-h", "hyp", "-i", "spu_id", "-e", "utf-8", "-o", "rsum", "stdout"]
        done = subprocess.run(
            [SCLITE, *options], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        rows = [line.replace("|", " ").split() for line in done.stdout.splitlines()]
        found = {row[0]: row for row in rows if len(row) == 9 and row[1].isdigit()}
        assert {"spk_0", "spk_1", "spk_2"} <= set(found)
        for name, its in [*rate.groups(speakers).items(), ("Sum", rate)]:
            sentences, tokens, _, _, _, _, errors, wrong = map(int, found[name][1:])
            assert (sentences, tokens, wrong) == (
                len(its.utterances), its.n_ref, its.sentence_errors
            )  # fmt: skip
            # Its substitutions cost 4, the others 3: now and then it prefers more errors.
            most = its.errors if unit == "word" else 1.01 * its.errors
            assert its.errors <= errors <= most


def test_a_text_too_long_for_a_table_is_named():
    long = "a " * 40_000
    with pytest.raises(EvalError, match=r"'u7': 40001 × 40001 tokens are too many for split"):
        score({"u7": long + "b"}, {"u7": "b " + long}, split="kaldi")
    assert score({"u7": long}, {"u7": long}, split="kaldi").errors == 0


def test_unknown_split():
    with pytest.raises(
        EvalError, match="unknown split 'x': choose one of jiwer, kaldi, align-text"
    ):
        score({"u": "a"}, {"u": "a"}, split="x")
