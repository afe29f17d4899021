"""The interpreter learns, resumes member by member, repeats itself bit for bit, and predicts what it is said to."""

import json

import numpy as np
import pytest
import torch
from feature_labels import small_source, truth_of
from one_by_one import fit_pixels
from torch.nn import functional

from medseg_gan.errors import MedsegError
from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.systems.datasetgan.interpreter import members
from medseg_gan.systems.datasetgan.interpreter import training as ensemble
from medseg_gan.systems.datasetgan.interpreter.agreement import agreement
from medseg_gan.systems.datasetgan.interpreter.calibration import Calibration
from medseg_gan.systems.datasetgan.interpreter.fit_images import fit_images
from medseg_gan.systems.datasetgan.interpreter.masks import drop_small_classes
from medseg_gan.systems.datasetgan.interpreter.members import PRESETS
from medseg_gan.systems.datasetgan.interpreter.model import Interpreter, load_interpreter
from medseg_gan.systems.datasetgan.interpreter.settings import InterpreterTraining
from medseg_gan.systems.datasetgan.interpreter.tiles import classify_maps
from medseg_gan.systems.datasetgan.interpreter.training import train_interpreter
from medseg_gan.systems.datasetgan.samples.features import gather_pixels, upsample_maps
from medseg_gan.systems.plan import plan_recipe
from medseg_gan.training.segmenter import read_training

K = 3


@pytest.fixture(scope="module")
def source():
    return small_source()


@pytest.fixture(scope="module")
def annotated(source):
    return source.render(range(8))


@pytest.fixture(scope="module")
def labels(annotated):
    return truth_of(annotated)


def train(folder, annotated, labels, **settings):
    more = {name: settings.pop(name) for name in ("max_steps", "calibration") if name in settings}
    defaults = {"loss": "whole_image", "members": 2, "steps": 12, "image_members": 1}
    how = InterpreterTraining(**defaults | settings)
    return train_interpreter(folder, annotated, labels, how, num_classes=K, seed=3, **more)


def states(interpreter):
    return [tensor for network in interpreter.members for tensor in network.state_dict().values()]


def test_whole_image_members_learn_and_generalise(tmp_path, source, annotated, labels):
    interpreter = train(tmp_path, annotated, labels, members=1, steps=60)
    held_out = source.render(range(8, 16))
    truth = truth_of(held_out).numpy()
    result = agreement(interpreter, source, np.arange(8, 16), truth, K)
    untrained = Interpreter([PixelClassifier(96, (48, 48, 48), K)])
    assert result["agreement_miou"] > 0.2 + agreement(untrained, source, np.arange(8, 16), truth, K)["agreement_miou"]
    assert result["held_out_images"] == 8
    assert result["labellers"] == {"features": result["agreement_miou"]}
    assert np.mean(result["per_class_iou"]) == pytest.approx(result["agreement_miou"])


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_pixel_members_learn_from_gathered_pixels(tmp_path, annotated, labels, preset):
    interpreter = train(
        tmp_path, annotated, labels, loss="pixels", preset=preset, members=1, max_epochs=6, pixel_batch=64
    )
    pred = interpreter.predict(annotated.images, annotated.maps)
    assert (pred.labels == labels).float().mean() > 0.8


def test_members_are_repeated_bit_for_bit_and_differ_from_each_other(tmp_path, annotated, labels):
    once = train(tmp_path / "once", annotated, labels, labeller="average")
    twice = train(tmp_path / "twice", annotated, labels, labeller="average")
    assert all(torch.equal(a, b) for a, b in zip(states(once), states(twice), strict=True))
    assert not torch.equal(once.classifiers[0].first.weight, once.classifiers[1].first.weight)
    more = train(tmp_path / "more", annotated, labels, members=3)
    assert torch.equal(more.classifiers[1].first.weight, once.classifiers[1].first.weight)


def test_finished_members_are_kept_and_an_interrupted_training_equals_a_whole_one(
    tmp_path, annotated, labels, monkeypatch
):
    whole = train(tmp_path / "whole", annotated, labels)
    folder = tmp_path / "interrupted"

    def killed(*args, **kwargs):
        if (folder / "classifier-00.pt").exists():
            raise KeyboardInterrupt
        return fit_images(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(members, "fit_images", killed)
        train(folder, annotated, labels)
    with pytest.raises(MedsegError, match="no finished interpreter"):
        load_interpreter(folder)
    before = (folder / "classifier-00.pt").stat().st_mtime_ns
    resumed = train(folder, annotated, labels)
    assert (folder / "classifier-00.pt").stat().st_mtime_ns == before
    assert all(torch.equal(a, b) for a, b in zip(states(resumed), states(whole), strict=True))


def test_interrupted_pixel_members_go_on_and_their_groups_do_not_matter(tmp_path, annotated, labels, monkeypatch):
    settings = {"loss": "pixels", "members": 3, "max_epochs": 2, "max_steps": 40}
    whole = train(tmp_path / "whole", annotated, labels, **settings)
    keep = ensemble.save_checkpoint

    def killed(path, **objects):
        if "classifier-01" in path.name:
            raise KeyboardInterrupt
        keep(path, **objects)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ensemble, "save_checkpoint", killed)
        train(tmp_path / "half", annotated, labels, **settings)
    assert (tmp_path / "half" / "classifier-00.pt").exists()
    resumed = train(tmp_path / "half", annotated, labels, **settings)
    assert not list((tmp_path / "half").glob("unfinished*"))
    for mine, other in zip(resumed.classifiers, whole.classifiers, strict=True):
        assert torch.allclose(mine.first.weight, other.first.weight, atol=1e-4)


@pytest.mark.parametrize("settings", [{"loss": "pixels", "max_steps": 5}, {"labeller": "image"}, {"labeller": "joint"}])
def test_unlabelled_pixels_teach_no_loss(tmp_path, annotated, labels, settings):
    half = labels.clone()
    half[:, :, 8:] = 255
    interpreter = train(tmp_path, annotated, half, members=1, steps=3, **settings)
    assert all(torch.isfinite(tensor.float()).all() for tensor in states(interpreter))


def test_a_calibrated_interpreter_is_loaded_so_and_labels_alike(tmp_path, source, annotated, labels):
    calibration = Calibration("temperature", (0.5,) * K, (0.0,) * K)
    plain = train(tmp_path / "plain", annotated, labels)
    train(tmp_path / "calibrated", annotated, labels, calibration=calibration)
    again = load_interpreter(tmp_path / "calibrated")
    assert again.calibration == calibration
    pred, before = (one.predict(annotated.images, annotated.maps) for one in (again, plain))
    assert torch.equal(pred.labels, before.labels) and torch.equal(pred.uncertainty, before.uncertainty)
    assert pred.doubt.sum() > before.doubt.sum()
    probs = plain.probabilities(annotated.images, annotated.maps)
    assert torch.allclose(again.probabilities(annotated.images, annotated.maps), calibration(probs))
    found = agreement(again, source, np.arange(8), labels.numpy(), K)
    assert found["calibrated_error"] != found["calibration_error"] and found["disagreement"] > 0


def test_members_of_other_settings_are_refused(tmp_path, annotated, labels):
    train(tmp_path, annotated, labels, members=1)
    with pytest.raises(MedsegError, match=r"members trained otherwise \(steps changed\)"):
        train(tmp_path, annotated, labels, members=1, steps=13)
    with pytest.raises(MedsegError, match=r"\(labels changed\)"):
        train(tmp_path, annotated, 2 - labels, members=1)


def test_a_loaded_interpreter_predicts_the_same(tmp_path, annotated, labels):
    interpreter = train(tmp_path, annotated, labels, labeller="average")
    pred = interpreter.predict(annotated.images, annotated.maps)
    again = load_interpreter(tmp_path).predict(annotated.images, annotated.maps)
    assert torch.equal(pred.labels, again.labels) and torch.equal(pred.uncertainty, again.uncertainty)
    assert load_interpreter(tmp_path).labellers == ("features", "image", "average")


@pytest.mark.parametrize("content", ["{}", "[]", "null", "edited"])
def test_a_spoilt_description_is_one_line(tmp_path, content):
    whole = {"classifiers": 3, "image_networks": [], "depth": 96, "hidden": [8, 4], "order": "linear-bn-relu"}
    whole |= {"num_classes": 3, "variant": "editgan", "labeller": "features", "vote": "majority"}
    (tmp_path / "interpreter.json").write_text(json.dumps(whole) if content == "edited" else content)
    with pytest.raises(MedsegError, match=r"interpreter\.json .* use --rerun train_interpreter") as caught:
        load_interpreter(tmp_path)
    assert "\n" not in str(caught.value)


def test_prediction_is_the_vote_of_classifiers_on_the_hypercolumn(annotated):
    torch.manual_seed(1)
    depth = sum(part.shape[1] for part in annotated.maps)
    members = [PixelClassifier(depth, (8, 4), K) for _ in range(5)]
    pred = Interpreter(members).predict(annotated.images, annotated.maps)
    rows = upsample_maps(annotated.maps, 16).permute(0, 2, 3, 1).reshape(-1, depth)
    with torch.no_grad():
        votes = torch.stack([functional.one_hot(member(rows).argmax(1), K) for member in members]).sum(0)
    expected = votes.argmax(1).reshape(pred.labels.shape)
    assert (pred.labels == expected).float().mean() > 0.999  # float32: a rare tie of logits may fall otherwise
    assert pred.labels.dtype == torch.uint8 and pred.scores.shape == (8,)


def test_joint_networks_are_exact_against_the_hypercolumn_and_are_loaded_as_they_were(tmp_path, annotated, labels):
    interpreter = train(tmp_path, annotated, labels, labeller="joint", image_members=2, steps=3)
    assert interpreter.labellers == ("joint",) and len(interpreter.members) == 2
    column = upsample_maps(annotated.maps, 16)
    with torch.no_grad():
        logits = [
            network.segment(
                annotated.images, functional.conv2d(column, network.first.weight[..., None, None], network.first.bias)
            )
            for network in interpreter.joint_networks
        ]
    mean = torch.stack([one.softmax(1) for one in logits]).mean(0)
    again = load_interpreter(tmp_path)
    assert (again.probabilities(annotated.images, annotated.maps) - mean).abs().max() < 1e-4
    with pytest.raises(MedsegError, match="'average' has no members"):
        Interpreter([], joint_networks=again.joint_networks, labeller="average")


def test_average_weighs_both_ensembles_equally(tmp_path, annotated, labels):
    interpreter = train(tmp_path, annotated, labels, labeller="average", members=3, image_members=1)
    with torch.no_grad():
        features = classify_maps(interpreter.classifiers, annotated.maps, 16).mean(0)
        image = interpreter.image_networks[0](annotated.images).softmax(1)
    expected = (features + image).argmax(1)
    labels_of = interpreter.predict_each(annotated.images, annotated.maps)
    assert (labels_of["average"] == expected).float().mean() > 0.999
    assert torch.equal(labels_of["average"], interpreter.predict(annotated.images, annotated.maps).labels)


def test_networks_on_the_image_may_learn_for_longer(tmp_path, annotated, labels):
    train(tmp_path / "as many", annotated, labels, labeller="image")
    assert read_training(tmp_path / "as many" / "image-00")["steps"] == 12
    train(tmp_path / "more", annotated, labels, labeller="image", image_steps=15)
    assert read_training(tmp_path / "more" / "image-00")["steps"] == 15
    with pytest.raises(MedsegError, match=r"trained otherwise \(image_steps changed\)"):
        train(tmp_path / "more", annotated, labels, labeller="image", image_steps=16)


def test_unlabelled_pixels_teach_nothing(annotated, labels):
    half = labels.clone()
    half[:, :, 8:] = 255
    wrong = half.clone()
    trained = []
    for target in (half, wrong):
        torch.manual_seed(0)
        classifier = PixelClassifier(sum(part.shape[1] for part in annotated.maps), (8,), K)
        steps = fit_pixels(classifier, annotated.maps, target, seed=(0,), lr=1e-3, max_epochs=1, batch=64)
        trained.append(classifier.first.weight)
    assert steps == 8 * 16 * 8 // 64
    assert torch.equal(*trained)


def test_early_stop_ends_in_the_fifth_epoch_or_later(annotated):
    noise = torch.randint(0, K, (8, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    classifier = PixelClassifier(sum(part.shape[1] for part in annotated.maps), (8,), K)
    steps = fit_pixels(classifier, annotated.maps, noise, seed=(0,), lr=1e-5, max_epochs=40, batch=64)
    assert 4 * 32 + 51 <= steps < 40 * 32


def test_small_classes_become_background_image_by_image():
    labels = torch.zeros(2, 4, 4, dtype=torch.uint8)
    labels[0, 0, :3], labels[1, 0, :2], labels[1, 3, 3] = 1, 1, 255
    dropped = drop_small_classes(labels, 3)
    assert (dropped[0] == labels[0]).all()
    assert dropped[1].sum() == 255


def test_gathered_pixels_of_merged_maps_keep_their_order(annotated):
    rows = gather_pixels(annotated.maps, torch.arange(8 * 256), 16)
    expected = upsample_maps(annotated.maps, 16).permute(0, 2, 3, 1).reshape(8 * 256, -1)
    assert (rows - expected).abs().max() < 1e-5


def test_unknown_names_and_useless_masks_are_one_clear_line(tmp_path, annotated, labels):
    with pytest.raises(MedsegError, match=r"train_interpreter.preset is \"seed03\", .*seed003"):
        plan_recipe("segthor_datasetgan", sets=["train_interpreter.preset=seed03"])
    with pytest.raises(MedsegError, match="fewer than two classes"):
        train(tmp_path, annotated, torch.zeros_like(labels))
    with pytest.raises(
        MedsegError, match="labeller 'image' has no members; 0 classifiers, 0 image networks and 0 joint ones"
    ):
        Interpreter([], labeller="image")


def test_a_loss_that_is_not_finite_stops_with_its_step(annotated, labels):
    broken = [part.clone() for part in annotated.maps]
    broken[0][:] = float("nan")
    with pytest.raises(MedsegError, match="the loss is nan at step 0"):
        fit_images(
            PixelClassifier(sum(p.shape[1] for p in broken), (8,), K), broken, labels, seed=(0,), lr=1e-3, steps=2
        )
