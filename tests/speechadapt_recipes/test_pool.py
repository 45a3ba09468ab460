"""Data directories as one, without what CTC cannot learn."""

import pytest
from kaldi_rules import problems
from noisy_clips import write_sounds

from speechadapt.data import Utterance, read_data_dir, write_data_dir
from speechadapt.errors import DataError
from speechadapt_recipes.bases.pool import pool


def test_pooling_leaves_out_what_ctc_cannot_learn(tmp_path):
    texts = {"a": "one", "b": "?!", "c": "aabbccddee" * 3, "d": "two", "e": "x" * 20}
    utterances = write_sounds(tmp_path, texts, speaker="s")
    utterances = [
        Utterance(
            f"s-{u.id}", u.audio, text=texts[u.id], speaker="s",
            duration=20.0 if u.id == "d" else 0.6 if u.id == "e" else 0.5,
        )
        for u in utterances
    ]  # fmt: skip
    write_data_dir(tmp_path / "one", utterances[:3], {"LICENCE": "free\n"})
    write_data_dir(tmp_path / "two", utterances[3:], {"LICENCE": "free\nmore\n"})
    both = [tmp_path / "one", tmp_path / "two"]
    assert pool(both, tmp_path / "all", for_ctc=False) == {}
    assert len(read_data_dir(tmp_path / "all")) == 5
    reasons = pool(both, tmp_path / "ctc", for_ctc=True)
    assert reasons == {
        "nothing that can be heard in the text": 1,
        "more characters than outputs": 2,  # 20 equal ones need 19 blanks between them
        "longer than 16 s": 1,
    }
    assert [u.id for u in read_data_dir(tmp_path / "ctc")] == ["s-a"]
    assert problems(tmp_path / "ctc") == []
    assert (tmp_path / "ctc" / "LICENCE").read_text() == "free\nmore\n"
    with pytest.raises(DataError, match="s-a is in an earlier directory"):
        pool([tmp_path / "one", tmp_path / "one"], tmp_path / "twice", for_ctc=False)
