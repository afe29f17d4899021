"""Pre-labels are offered, the most uncertain image comes first, and training goes on behind the page."""

import threading

import numpy as np
import pytest
from annotation_example import SIZE, blob, scribble, work_of

from medseg_gan.annotate.guide import Guide, Predictions
from medseg_gan.errors import MedsegError


@pytest.fixture
def work(tmp_path):
    return work_of(tmp_path / "person", count=6)


def teach(numbers, labels, folder, say):
    """An interpreter that remembers what it was shown."""
    say("working")
    folder.mkdir()
    predicted = np.full((6, *SIZE), 2, np.uint8)
    predicted[list(numbers)] = labels
    return Predictions(predicted, np.array([0.1, 0.2, 0.3, 0.6, 0.5, 0.4]))


def paint(work, count):
    for k in range(count):
        work.save(work.open(work.names[k]), scribble(k), seconds=1.0)


def test_a_rule_begins_an_image_and_says_where_it_finds_nothing(work):
    guide = Guide(work, {"blob": blob, "none": lambda image: None})
    np.testing.assert_array_equal(guide.pre_label(work.names[2], "blob"), blob(work.open(work.names[2]).image))
    with pytest.raises(MedsegError, match="none finds nothing in 0002"):
        guide.pre_label(work.names[2], "none")
    with pytest.raises(MedsegError, match="no interpreter yet"):
        guide.pre_label(work.names[2], "interpreter 1")


def test_three_painted_images_give_an_interpreter_that_orders_the_rest(work):
    guide = Guide(work, {"blob": blob}, teach)
    assert [item.name[:4] for item in guide.order(work.items())] == [f"{k:04d}" for k in range(6)]
    paint(work, 2)
    with pytest.raises(MedsegError, match="2 images are painted; an interpreter needs at least 3"):
        guide.start()
    paint(work, 3)
    guide.start()
    guide.wait()
    assert guide.said == "interpreter 1: ready, from 3 painted images"
    assert guide.kinds == ["interpreter 1", "blob"]
    assert [item.name[:4] for item in guide.order(work.items())] == ["0003", "0004", "0005", "0002", "0001", "0000"]
    np.testing.assert_array_equal(guide.pre_label(work.names[1], "interpreter 1"), scribble(1))
    again = Guide(work, {}, None)  # after a restart, and without what trained it
    assert again.current == 1 and again.scores() == guide.scores()
    guide.start()
    guide.wait()
    assert guide.current == 2


def test_work_goes_on_while_an_interpreter_is_trained(work):
    begun, go_on = threading.Event(), threading.Event()

    def slow(*arguments):
        begun.set()
        assert go_on.wait(10)
        return teach(*arguments)

    guide = Guide(work, {}, slow)
    paint(work, 3)
    guide.start()
    assert begun.wait(10) and guide.running and guide.current is None
    with pytest.raises(MedsegError, match="being trained already"):
        guide.start()
    work.save(work.open(work.names[3]), scribble(3), seconds=1.0)
    go_on.set()
    guide.wait()
    assert guide.current == 1


def test_a_training_that_fails_is_said_and_leaves_the_last_interpreter(work):
    guide = Guide(work, {}, teach)
    paint(work, 3)
    guide.start()
    guide.wait()

    def broken(*_):
        raise MedsegError("the masks teach nothing")

    guide.train = broken
    guide.start()
    guide.wait()
    assert guide.said == "interpreter 2: failed: the masks teach nothing" and guide.current == 1
    with pytest.raises(MedsegError, match="no generator to train"):
        Guide(work, {}).start()


def test_images_exported_later_come_last_until_it_is_trained_again(work, tmp_path):
    guide = Guide(work, {}, teach)
    paint(work, 3)
    guide.start()
    guide.wait()
    longer = Guide(work_of(work.folder, count=7), {}, teach)
    todo = [item.name[:4] for item in longer.order(longer.work.items()) if item.state == "to do"]
    assert todo == ["0003", "0004", "0005", "0006"]
    with pytest.raises(MedsegError, match="0006 was exported after the interpreter was trained"):
        longer.pre_label(longer.work.names[6], "interpreter 1")
