"""One iteration of alternate training: who is moved by what, rounds and ramps, what is sampled."""

from types import SimpleNamespace

import pytest
import torch
from layered_example import build, reals, small

from medseg_gan.losses.masks import background_loss
from medseg_gan.systems.layered import step as module
from medseg_gan.systems.layered.composition import compose

NETWORKS = ("G", "D", "E_pi", "F")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def weights(step):
    """Copies of every network's parameters; buffers of norms move with every look."""
    return {name: [p.detach().clone() for p in getattr(step, name).parameters()] for name in NETWORKS}


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def moved(before, after):
    return {name for name in before if not same(before[name], after[name])}


def engine(iteration):
    return SimpleNamespace(state=SimpleNamespace(iteration=iteration))


def record_moves(step, monkeypatch):
    """What each optimiser's step moves, in order."""
    found = []
    for name in ("optimizer_G", "optimizer_D", "optimizer_F"):
        optimizer = getattr(step, name)

        def watched(*args, original=optimizer.step, name=name):
            before = weights(step)
            original(*args)
            found.append((name, moved(before, weights(step))))

        monkeypatch.setattr(optimizer, "step", watched)
    return found


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("round_number", [0, 1])
def test_each_half_of_a_gan_step_moves_its_own_networks(monkeypatch, reuse, round_number):
    step = build(reuse_fakes=reuse)
    found = record_moves(step, monkeypatch)
    terms = step.gan_step(reals(), round_number, step=5)
    assert found == [("optimizer_G", {"G"}), ("optimizer_D", {"D", "E_pi"})]
    assert all(term.ndim == 0 and not term.requires_grad for term in terms.values())
    assert {"loss_G", "loss_D", "loss_mi_G", "loss_mi_D", "area", "area_sd", "empty", "full"} <= terms.keys()


def test_the_segmenter_is_frozen_in_gan_steps_buffers_and_all_and_the_gan_in_its_own():
    step = build()
    before = {name: value.clone() for name, value in step.F.state_dict().items()}
    step.gan_step(reals(), 1, 5)
    assert all(torch.equal(before[name], value) for name, value in step.F.state_dict().items())
    gan = {name: {k: v.clone() for k, v in getattr(step, name).state_dict().items()} for name in ("G", "D", "E_pi")}
    terms = step.segmenter_step()
    for name, state in gan.items():
        assert all(torch.equal(state[k], v) for k, v in getattr(step, name).state_dict().items())
    assert set(terms) == {"loss_F"}
    assert any(not torch.equal(before[name], value) for name, value in step.F.state_dict().items())


def test_the_gan_goes_on_training_after_the_segmenters_turn():
    """F samples in evaluation mode, later steps go back to training mode; F's gradients come back too."""
    step, changed = build(), []
    step.trust.iou = 1.0  # so that F is asked in round 2
    for call in (lambda: step.gan_step(reals(), 0, 5), step.segmenter_step, lambda: step.gan_step(reals(), 1, 0)):
        before = weights(step)
        call()
        changed.append(moved(before, weights(step)))
    assert changed == [{"G", "D", "E_pi"}, {"F"}, {"G", "D", "E_pi"}]
    assert step.G.training and not step.F.training
    before = weights(step)
    step.segmenter_step()
    assert moved(before, weights(step)) == {"F"} and step.F.training and not step.G.training


def test_background_loss_reaches_the_image_and_not_the_segmenter():
    step = build()
    image = reals().requires_grad_()
    background_loss(step.frozen_F(image)).backward()
    assert image.grad is not None and (image.grad != 0).any()
    assert all(weight.grad is None for weight in step.F.parameters())


def test_background_loss_lowers_what_is_seen_in_the_background():
    step = build()
    image = reals().requires_grad_()
    before = background_loss(step.frozen_F(image))
    (gradient,) = torch.autograd.grad(before, image)
    after = background_loss(step.frozen_F((image - 0.5 * gradient / gradient.norm()).detach()))
    assert after < before


def test_foreground_is_class_1():
    step = build()
    step.F = lambda image: torch.stack([image[:, 0], image[:, 0] + 2], dim=1)
    step.F.eval = lambda: SimpleNamespace(requires_grad_=lambda _: None)
    probs = step.frozen_F(reals()).softmax(dim=1)[:, 1]
    torch.testing.assert_close(probs, torch.full((4, 16, 16), 0.8808), atol=1e-3, rtol=0)


def test_round_1_knows_no_background_loss():
    step = build()
    step.trust.iou = 0.6
    assert "loss_bg" not in step.gan_step(reals(), 0, 5)
    assert "loss_bg" in step.gan_step(reals(), 1, 0)
    unweighted = build(gamma_bg=0)
    unweighted.trust.iou = 0.6
    assert "loss_bg" not in unweighted.gan_step(reals(), 1, 0)


def test_a_segmenter_that_learned_nothing_does_not_judge_backgrounds():
    step = build()
    step.trust.iou = 0.4
    assert "loss_bg" not in step.gan_step(reals(), 1, 0)


def test_the_segmenter_is_judged_on_fresh_samples_against_their_own_masks(monkeypatch):
    step = build()
    mask = torch.zeros(4, 1, 16, 16)
    mask[:, :, :8] = 0.9
    monkeypatch.setattr(step, "sample", lambda count: (reals(count), mask, None, None))
    half = torch.zeros(4, 2, 16, 16)
    half[:, 1, :4] = 1
    monkeypatch.setattr(step, "frozen_F", lambda image: half)
    assert step.judge_segmenter() == pytest.approx(0.5)


def test_soft_masks_teach_the_right_class(monkeypatch):
    """Eq. 7: -(1 - pi) log(1 - F) - pi log F, F the probability of class 1."""
    step, seen = build(), {}
    monkeypatch.setattr(
        module, "soft_cross_entropy", lambda logits, probs: seen.update(probs=probs) or logits.square().mean()
    )
    mask = torch.rand(4, 1, 16, 16)
    monkeypatch.setattr(step, "sample", lambda count: (reals(count), mask, None, None))
    step.segmenter_step()
    assert torch.equal(seen["probs"][:, 1:], mask)
    torch.testing.assert_close(seen["probs"].sum(dim=1), torch.ones(4, 16, 16))


def test_masks_are_judged_unmoved_and_images_moved(monkeypatch):
    """L_mi, L_b see pi itself, D and E_x the perturbed composite, F the background as it is."""
    step, seen = build(shift=0.3, degrees=40, shrink=-0.5, contrast=(0.5, 0.5)), {}
    layers = step.layers(4, step.G.train())
    monkeypatch.setattr(step, "layers", lambda count, G: layers)

    def keep(name, function):
        def kept(image, *rest):
            seen.setdefault(name, image.detach())
            return function(image, *rest)

        return kept

    monkeypatch.setattr(step, "parent_of", keep("E_pi", step.parent_of))
    monkeypatch.setattr(step, "judge", keep("D", step.judge))
    monkeypatch.setattr(step, "frozen_F", keep("F", step.frozen_F))
    step.trust.iou = 1.0
    monkeypatch.setattr(module, "binarisation_loss", keep("L_b", module.binarisation_loss))
    step.settings = small(reuse_fakes=True)
    step.gan_step(reals(), 1, 0)
    background, foreground, mask, _, _ = layers
    assert torch.equal(seen["E_pi"], mask) and torch.equal(seen["L_b"], mask)
    assert torch.equal(seen["F"], background)
    assert not torch.allclose(seen["D"], compose(background, foreground, mask), atol=1e-2)


def test_generator_raises_what_discriminator_lowers(monkeypatch):
    """With the information off, a step of G raises D's logits of the same latents, and a step of D lowers them."""
    step = build(gamma_mi=0, gamma_b=0, shift=0, degrees=0, shrink=0, lr=1e-3, reuse_fakes=True)
    logits = []

    def watch(optimizer):
        original = optimizer.step

        def stepped():
            logits.append(look())
            original()
            logits.append(look())

        monkeypatch.setattr(optimizer, "step", stepped)

    def look():
        with torch.no_grad():
            step.D.eval()
            found = step.D(compose(*step.G(z, c, c_sup)))[0].mean().item()
            step.D.train()
            return found

    torch.manual_seed(5)
    state = torch.get_rng_state()
    z = torch.randn(4, 4)
    c, c_sup = step.prior.draw(4, "cpu")
    monkeypatch.setattr(step, "layers", lambda count, G: (*G(z, c, c_sup), c, c_sup))
    watch(step.optimizer_G)
    watch(step.optimizer_D)
    torch.set_rng_state(state)
    step.gan_step(reals(), 0, 0)
    before_G, after_G, before_D, after_D = logits
    assert after_G > before_G
    assert after_D < before_D


def test_place_and_gan_done_agree():
    settings = small(rounds=3)
    assert (settings.gan_steps, settings.round_steps, settings.iterations) == (6, 9, 27)
    gan = 0
    for iteration in range(1, settings.iterations + 1):
        round_number, inside = settings.place(iteration)
        assert (round_number, inside) == ((iteration - 1) // 9, (iteration - 1) % 9)
        assert settings.gan_done(iteration - 1) == gan
        gan += inside < settings.gan_steps
    assert settings.gan_done(settings.iterations) == gan == 18


def test_weights_rise_in_round_1_alone():
    step = build(kimg=0.04)  # 10 steps
    assert [step.risen(0.5, 0, k) for k in range(7)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1])
    assert step.risen(0.0, 0, 0) == 1 and step.risen(1.0, 1, 0) == 1


@pytest.mark.parametrize("ramped", ["ramp_mi", "ramp_b"])
def test_a_ramp_holds_its_own_weight_only(ramped):
    """At its first step a ramped weight counts nothing, so G moves as without it."""

    def generator_after(**changes):
        torch.manual_seed(0)
        step = build(**({"ramp_mi": 0, "ramp_b": 0} | changes))
        torch.manual_seed(1)
        step.gan_step(reals(), 0, 0)
        return list(step.G.parameters())

    weight = {"ramp_mi": "gamma_mi", "ramp_b": "gamma_b"}[ramped]
    assert same(generator_after(**{ramped: 0.5}), generator_after(**{weight: 0}))
    assert not same(generator_after(), generator_after(**{weight: 0}))


def test_a_step_depends_on_seed_and_iteration_alone():
    results = []
    for noise in (1, 2):
        step = build()
        torch.manual_seed(noise)
        results.append([step(engine(k), {"image": reals()}) for k in (1, 7, 10)])
    assert results[0] == results[1]
    assert [set(terms) == {"loss_F"} for terms in results[0]] == [False, True, False]


def test_samples_are_unmoved_and_in_evaluation_mode():
    step = build(shift=0.4, degrees=90, shrink=-1)
    step.gan_step(reals(), 0, 5)
    before = {name: value.clone() for name, value in step.G.state_dict().items()}
    image, mask, background, foreground = step.sample(5)
    assert torch.equal(image, compose(background, foreground, mask))
    assert all(torch.equal(before[name], value) for name, value in step.G.state_dict().items())


def test_the_averaged_generator_follows_weights_and_running_statistics(monkeypatch):
    step = build(ema=0.75)
    before = {name: value.clone() for name, value in step.G_ema.state_dict().items()}
    seen = {}
    average = module.average

    def watched(G_ema, G, decay):
        average(G_ema, G, decay)
        seen.update(G={name: value.clone() for name, value in G.state_dict().items()})

    monkeypatch.setattr(module, "average", watched)
    step.gan_step(reals(), 0, 5)
    for name, value in step.G_ema.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * seen["G"][name])
        else:
            assert torch.equal(value, seen["G"][name])
    assert "G_ema" in step.objects() and "G_ema" not in build().objects()


def test_an_averaged_generator_is_sampled_from():
    step = build(ema=0.9)
    with torch.no_grad():
        step.G_ema.mask.bias.fill_(50)
    assert (step.sample(3)[1] == 1).all()


def test_the_mask_can_begin_small():
    mask = build(mask_bias=-6.0).sample(4)[1]
    assert mask.max() < 0.5


def test_size_loss_takes_the_place_of_information():
    assert "size" not in build().gan_step(reals(), 0, 0)
    assert "size" in build(size_weight=2, gamma_mi=0).gan_step(reals(), 0, 0)


def test_share_of_masks_that_are_empty_or_full_is_told():
    mask = torch.zeros(4, 1, 8, 8)
    mask[1] = 1
    mask[2, ..., :4] = 1
    terms = module.mask_terms(mask)
    assert {name: round(value.item(), 3) for name, value in terms.items()} == {
        "area": 0.375, "area_sd": 0.479, "empty": 0.5, "full": 0.25,
    }  # fmt: skip


def test_gaussian_codes_train_too():
    step = build(prior="gaussian", c_dim=4)
    terms = step.gan_step(reals(), 0, 5)
    assert all(torch.isfinite(term) for term in terms.values())


def test_all_terms_of_an_iteration_lie_on_the_networks_device(monkeypatch):
    """Rows stack them: one on the CPU among those of a GPU, here of `meta`, would end a training after round 1."""
    step = build()
    monkeypatch.setattr(step, "judge_segmenter", lambda: 0.5)
    monkeypatch.setattr(step, "segmenter_step", lambda: {"loss_F": torch.zeros((), device="meta")})
    terms = step(engine(9), {})
    assert set(terms) == {"loss_F", "F_synthetic_iou"}
    assert {term.device.type for term in terms.values()} == {"meta"}
