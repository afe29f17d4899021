"""The watchdog: trivial masks by their areas, F's answers at the ends of rounds, and when it may judge."""

import pytest
from layered_example import small

from medseg_gan.systems.layered.watchdog import Trivial, Watchdog

HEALTHY = {"area": 0.3, "empty": 0.0, "full": 0.0}
BACKGROUND = {"area": 0.005, "empty": 1.0, "full": 0.0}
FOREGROUND = {"area": 0.97, "empty": 0.0, "full": 1.0}
CODED = {"area": 0.45, "empty": 0.4, "full": 0.4}


def dog(watch_from=0.5, stop=True):
    """Watches rounds of 60 GAN steps and 3 of F."""
    return Watchdog(small(kimg=0.24, watch_from=watch_from), stop)


def watch(watchdog, terms, iterations):
    for iteration in iterations:
        watchdog.judge({"iteration": iteration, **terms})


@pytest.mark.parametrize(
    ("terms", "words"),
    [(BACKGROUND, "all as background"), (FOREGROUND, "all as foreground"), (CODED, "empty or full")],
)
def test_trivial_masks_stop_the_training(terms, words):
    watchdog = dog()
    with pytest.raises(Trivial, match=words) as found:
        watch(watchdog, terms, range(3, 61, 3))
    assert found.value.iteration == 30  # the first row it may judge
    assert found.value.reason == watchdog.reason and "\n" not in found.value.reason


def test_healthy_masks_pass():
    watchdog = dog()
    watch(watchdog, HEALTHY, range(3, 61, 3))
    assert watchdog.reason is None


def test_early_masks_may_mend():
    watchdog = dog()
    watch(watchdog, CODED, range(3, 16, 3))
    watch(watchdog, HEALTHY, range(18, 61, 3))
    assert watchdog.reason is None


def test_one_bad_row_is_not_enough():
    watchdog = dog()
    watch(watchdog, HEALTHY, range(3, 31, 3))
    watch(watchdog, CODED, [33])
    with pytest.raises(Trivial):
        watch(watchdog, CODED, range(36, 61, 3))


@pytest.mark.parametrize(("watch_from", "first"), [(0.0, 3), (0.25, 15), (0.8, 48), (1.0, 60)])
def test_it_judges_from_its_share_of_round_1(watch_from, first):
    with pytest.raises(Trivial) as found:
        watch(dog(watch_from), BACKGROUND, range(3, 61, 3))
    assert found.value.iteration == first


def test_masks_of_later_rounds_and_rows_of_the_segmenter_are_not_judged():
    watchdog = dog()
    assert watchdog.judge({"iteration": 61, "loss_F": 0.3}) is None
    watch(watchdog, BACKGROUND, range(64, 120, 3))
    assert watchdog.reason is None


def test_without_stop_it_notes_and_says():
    watchdog = dog(stop=False)
    said = watchdog.judge({"iteration": 33, **BACKGROUND})
    assert said == watchdog.reason and "all as background" in said


@pytest.mark.parametrize(("share", "trivial"), [(0.0, True), (0.01, True), (0.2, False), (0.95, True)])
def test_the_segmenter_is_looked_at_at_the_ends_of_rounds(share, trivial):
    watchdog = dog()
    watchdog.judge_segmenter(62, lambda: 1 / 0)  # not yet: a round has 63 iterations
    for end in (63, 126):
        if trivial:
            with pytest.raises(Trivial, match="F takes") as found:
                watchdog.judge_segmenter(end, lambda: share)
            assert found.value.iteration == end
        else:
            watchdog.judge_segmenter(end, lambda: share)


def test_what_looked_trivial_has_mended_if_the_segmenter_tells_something():
    watchdog = dog(stop=False)
    watch(watchdog, CODED, range(3, 61, 3))
    assert watchdog.reason
    watchdog.judge_segmenter(63, lambda: 0.25)
    assert watchdog.reason is None
    watchdog.judge_segmenter(126, lambda: 0.0)
    assert "0.0% of real pictures" in watchdog.reason


def test_an_interrupted_watch_goes_on_with_the_same_means():
    rows = [{"iteration": k, "area": 0.1 * (k % 7), "empty": 0.01 * k, "full": 0.0} for k in range(3, 31, 3)]
    whole, broken = dog(stop=False), dog(stop=False)
    for row in rows:
        whole.judge(row)
    broken.go_on(rows[:5])
    for row in rows[5:]:
        broken.judge(row)
    assert whole.means == broken.means and whole.reason == broken.reason
