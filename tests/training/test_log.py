"""Progress on a terminal and in a log file."""

import io

import pytest

from medseg_gan.training.log import Progress, in_words, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_terminal_no_word_before_half_a_minute() -> None:
    stream = io.StringIO()
    with Progress(100, "synthesize", "image", stream=stream) as bar:
        for _ in range(100):
            bar.update()
    assert stream.getvalue() == ""


def test_plain_line_says_share_speed_and_time_left() -> None:
    stream = io.StringIO()
    with Progress(200, "train_gan", "img", initial=100, stream=stream, line_every=0) as bar:
        bar.note("loss_G 1.2")
        bar.update(50)
    line = stream.getvalue()
    assert line.startswith("train_gan: 150/200 img (75%), ")
    assert "img/s" in line and "left" in line and line.endswith("loss_G 1.2\n")


def test_speed_does_not_count_what_an_earlier_run_did() -> None:
    bar = Progress(10**9, "train_gan", initial=10**8, stream=io.StringIO())
    bar.started -= 10
    bar.update(100)
    assert bar.rate() == pytest.approx(10, rel=0.01)


def test_terminal_gets_a_bar() -> None:
    stream = Terminal()
    with Progress(10, "prepare", "case", stream=stream) as bar:
        bar.update(10)
    assert "prepare" in stream.getvalue() and "10/10" in stream.getvalue()


def test_unknown_total_is_counted() -> None:
    bar = Progress(None, "read", "file", stream=io.StringIO())
    bar.update(3)
    assert bar.line().startswith("read: 3 file, ")


def test_progress_yields_everything_once() -> None:
    assert list(progress(range(5), "count")) == [0, 1, 2, 3, 4]
    assert list(progress((k for k in range(3)), "count", total=3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (720, "12 min"), (12_000, "3 h 20 min")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_total_that_comes_late_is_taken_over():
    stream = io.StringIO()
    with Progress(None, "prepare: phantom", "patient", stream=stream, line_every=0) as bar:
        bar.reach(3, 12)
        bar.reach(6)
    assert bar.done == 6
    assert bar.line().startswith("prepare: phantom: 6/12 patient (50%)")
