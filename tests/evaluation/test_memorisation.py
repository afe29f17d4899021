"""Planted copies are found, slices drawn anew are not, and the audit says when it cannot be trusted."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from shapes_pictures import pictures

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation import canaries, memorisation
from medseg_gan.evaluation.memorisation import audit_copies, mann_whitney_z, searches, share_nearer
from medseg_gan.evaluation.nearest import Neighbours, SliceSet
from medseg_gan.report.values import plain

SIZE = 32


def drawn(count: int, seed: int, who: str, slices: int = 4) -> SliceSet:
    return SliceSet.of(pictures(count, seed, size=SIZE), [f"{who}-{k // slices:03d}" for k in range(count)])


@pytest.fixture(scope="module")
def training():
    return drawn(160, 0, "gan")


@pytest.fixture(scope="module")
def unseen():
    return drawn(240, 1, "test")


def images(slices: SliceSet) -> torch.Tensor:
    return slices.load(slices.rows)


def test_slices_drawn_anew_are_not_flagged_beyond_the_stated_rate(training, unseen):
    audit = audit_copies(drawn(240, 2, "generated"), training, unseen, seed=0)
    assert audit.verdict == "no sign of copying"
    assert audit.flagged.mean() <= 0.04 and audit.facts["as_near_as_copies"] == 0
    for one in audit.measures.values():
        assert one.flags["unseen"].mean() <= 0.01 + 1e-9
        assert one.flags["decoys"].mean() <= 0.1
        assert abs(mann_whitney_z(one.neighbours["generated"].distance, one.neighbours["unseen"].distance)) < 4
    assert audit.facts["canaries"]["flagged"] == audit.facts["canaries"]["planted"] == 100


def test_too_few_unseen_slices_never_say_that_nothing_was_copied(training, unseen):
    generated = drawn(60, 2, "generated")
    few, enough = (
        audit_copies(generated, training, unseen.take(np.arange(n)), seed=0, canaries=2)
        for n in (memorisation.FEWEST_UNSEEN - 1, memorisation.FEWEST_UNSEEN)
    )
    assert few.verdict == "too few slices to judge" and enough.verdict == "no sign of copying"
    assert few.sentences[0].startswith("Too few slices to judge (99 real slices") and "at least 100" in few.sentences[0]
    assert not any("No sign of copying" in text or "No copies" in text for text in few.sentences)
    copied = audit_copies(training.take(np.arange(8)), training, unseen.take(np.arange(20)), seed=0, canaries=2)
    assert copied.verdict == "signs of copying"  # what was found needs no more slices


def test_a_leaning_over_few_slices_does_not_say_that_nothing_was_copied(training, unseen):
    facts = audit_copies(drawn(60, 2, "generated"), training, unseen, seed=0, canaries=2).facts
    facts["measures"]["pixels"]["nearer_to_training"] = {"share": 0.7, "interval": [0.6, 0.8], "patients": 20}
    verdict, sentences = memorisation._verdict(facts)
    assert verdict.startswith("leans") and sentences[0].startswith("No copies found, but a leaning: ")
    facts["unseen"]["looked_at"] = 22
    verdict, sentences = memorisation._verdict(facts)
    assert verdict.startswith("leans") and sentences[0].startswith("Too few slices to rule out copies (22 real")


def test_decoys_are_told_whatever_the_verdict(training, unseen):
    facts = audit_copies(drawn(60, 2, "generated"), training, unseen, seed=0, canaries=2).facts
    facts["decoys"] = {"planted": 100, "flagged": 4}
    for missed in (0, 1):
        facts["canaries"]["kinds"]["exact"]["flagged"] -= missed
        told = " ".join(memorisation._verdict(facts)[1])
        assert "Of 100 decoys" in told and "4 were flagged" in told


def test_a_generator_that_copies_is_caught(training, unseen):
    noise = torch.Generator().manual_seed(0)
    copied = images(training)[:80] + 0.1 * torch.randn(80, 1, SIZE, SIZE, generator=noise)
    mixed = torch.cat([copied, pictures(80, 3, size=SIZE)]).clamp(-1, 1)
    audit = audit_copies(SliceSet.of(mixed, ["g"] * 160), training, unseen, seed=0)
    assert audit.verdict == "signs of copying" and audit.sentences[0].startswith("Signs of copying: ")
    assert audit.flagged[:80].all() and audit.flagged[80:].mean() < 0.05
    assert audit.measures["pixels"].neighbours["generated"].position[:80].tolist() == list(range(80))
    assert audit.facts["measures"]["pixels"]["z"] < -5
    assert audit.facts["measures"]["pixels"]["nearer_to_training"]["interval"][0] > 0.5


def test_a_single_copy_among_many_is_enough(training, unseen):
    one = torch.cat([pictures(150, 4, size=SIZE), images(training)[7:8]])
    audit = audit_copies(SliceSet.of(one, ["g"] * 151), training, unseen, seed=0)
    assert audit.verdict == "signs of copying" and audit.facts["as_near_as_copies"] == 1 and audit.flagged[150]


def test_a_copy_of_what_two_patients_share_is_flagged_too(unseen):
    twice = pictures(80, 0, size=SIZE)
    training = SliceSet.of(torch.cat([twice, twice]), [f"gan-{k // 4:03d}" for k in range(160)])
    audit = audit_copies(SliceSet.of(twice[:20], ["g"] * 20), training, unseen, seed=0)
    assert audit.flagged.all()


def test_an_audit_that_misses_its_canaries_says_so_first(training, unseen, monkeypatch):
    monkeypatch.setitem(canaries.KINDS, "exact", lambda x, rng: torch.rand(x.shape, generator=rng) * 2 - 1)
    audit = audit_copies(drawn(60, 2, "generated"), training, unseen, seed=0, canaries=4)
    assert audit.verdict == "not to be trusted"
    assert audit.sentences[0].startswith("This audit cannot be trusted: of 20 planted copies") and (
        "4 of kind exact" in audit.sentences[0]
    )


def test_the_same_seed_gives_the_same_audit_and_blocks_do_not_matter(training, unseen):
    generated = drawn(60, 2, "generated")
    first, again, blocks = (
        audit_copies(generated, training, unseen, seed=5, images=40, canaries=3, block=block) for block in (64, 64, 9)
    )
    assert plain(first.facts) == plain(again.facts)
    np.testing.assert_array_equal(first.flagged, blocks.flagged)
    np.testing.assert_array_equal(first.generated, blocks.generated)
    assert len(first.generated) == 40 and first.facts["unseen"]["looked_at"] == 40
    assert first.canary_kinds == tuple(kind for kind in canaries.KINDS for _ in range(3))


def test_progress_reaches_what_was_announced(training, unseen):
    done: list[int] = []
    audit_copies(
        drawn(30, 2, "generated"), training, unseen, seed=0, images=50, canaries=3, on_done=lambda n: done.append(n)
    )
    assert sum(done) == searches(30, 160, 240, 50, 3)


def test_one_training_patient_leaves_plain_numbers(unseen):
    training = SliceSet.of(pictures(12, 0, size=SIZE), ["only"] * 12)
    facts = plain(audit_copies(drawn(8, 2, "generated"), training, unseen, seed=0, canaries=2).facts)
    json.dumps(facts, allow_nan=False)
    assert facts["measures"]["pixels"]["distance"]["training"] is None
    assert facts["measures"]["pixels"]["nearer_to_training"] == {"share": None, "interval": None, "patients": None}


def test_z_is_the_mann_whitney_statistic():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 70), rng.normal(0.4, 1, 90)
    u = sum(float((x > b).sum()) for x in a)
    assert mann_whitney_z(a, b) == pytest.approx((u - 3150) / np.sqrt(70 * 90 * 161 / 12))
    p = mannwhitneyu(a, b, alternative="less", method="asymptotic", use_continuity=False).pvalue
    assert 0.5 * (1 + torch.erf(torch.tensor(mann_whitney_z(a, b) / 2**0.5)).item()) == pytest.approx(p, rel=1e-3)
    assert mann_whitney_z(a, a) == 0 and np.isnan(mann_whitney_z(a, b[:0]))


def test_nearer_share_is_a_half_for_patients_of_one_kind_and_one_for_copies():
    rng = np.random.default_rng(0)
    outside = 0
    for k in range(20):
        share = share_nearer(rng.exponential(1, (40, 10)), rng.exponential(1, (40, 14)), seed=k)
        outside += not share["interval"][0] <= 0.5 <= share["interval"][1]
    assert outside <= 4
    assert share_nearer(rng.random((50, 8)), 2 + rng.random((50, 8)), seed=0)["share"] == 1


def test_flags_surprise_as_often_as_said():
    """Thresholds from few slices are uncertain; the probability of the flags counts that in."""
    rng = np.random.default_rng(0)

    def one(distances):
        return Neighbours(distances, np.zeros(len(distances), np.int64), np.tile([[0.0, 1.0]], (len(distances), 1)))

    surprises = 0
    for _ in range(300):
        judged = memorisation._judge({"unseen": one(1 + rng.random(60)), "generated": one(1 + rng.random(500))})
        near = judged.neighbours["generated"].distance < judged.near
        judged.flags["generated"] = near  # as if every near slice were alone, which is the most
        surprises += memorisation._chance(judged) < 0.05
    assert surprises <= 25


def test_canaries_stay_slices_and_differ_from_their_source_as_named():
    source = pictures(10, 0, size=64)
    for kind in canaries.KINDS:
        made = canaries.plant(source, kind, seed=0)
        assert made.shape == source.shape and made.abs().max() <= 1
        assert torch.equal(made, canaries.plant(source, kind, seed=0))
        assert torch.equal(made, source) == (kind == "exact")
    for one, moved in zip(source, canaries.plant(source, "shift", seed=1), strict=True):
        shifts = [(row, column) for row in range(-2, 3) for column in range(-2, 3)]
        same = [s for s in shifts if torch.equal(torch.roll(one, s, (1, 2))[:, 4:-4, 4:-4], moved[:, 4:-4, 4:-4])]
        assert len(same) == 1 and same != [(0, 0)]


def test_bad_input_is_one_line(training, unseen):
    nothing = SliceSet.of(torch.zeros(0, 1, SIZE, SIZE), [])
    with pytest.raises(MedsegError, match="no generated slice"):
        audit_copies(nothing, training, unseen, seed=0)
    with pytest.raises(MedsegError, match="no unseen real slice"):
        audit_copies(training, training, nothing, seed=0)
    with pytest.raises(MedsegError, match="gan-000 is in the training set and among the unseen"):
        audit_copies(unseen, training, training, seed=0)


def test_the_stated_rates_are_those_of_the_code():
    assert (memorisation.NEAR, memorisation.ALONE) == (0.01, 0.05)
