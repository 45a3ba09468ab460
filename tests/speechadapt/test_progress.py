"""Progress bars and what is written while one is drawn."""

import io

from speechadapt.progress import progress, say


def test_what_is_said_does_not_tear_the_bar():
    stream = io.StringIO()
    with progress(total=2, desc="work", file=stream, mininterval=0) as bar:
        bar.update(1)
        say("one line\nand another\n", stream)
        bar.update(1)
    before, after = stream.getvalue().split("one line\nand another\n")
    assert "50%" in before and before.endswith("\r")  # the bar is wiped …
    assert not before.rsplit("\r", 2)[1].strip()
    assert after.startswith("\rwork:") and "100%" in after  # … and drawn again below
