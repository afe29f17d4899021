"""Recipes: profiles and overrides, and every mistake in one line with where it was written."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from toy_system import RECIPE

from medseg_gan.errors import UsageError
from medseg_gan.running.plain_yaml import parse_yaml
from medseg_gan.running.recipe import find_recipe, list_recipes, load_recipe, recipe_folder, resolved_text
from medseg_gan.systems.plan import plan_recipe

SYSTEMS = {"toy": "toy_system:ToyRecipe"}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(RECIPE)
    return "./toy.yaml"


def mistakes(path, *sets, profile=None):
    with pytest.raises(UsageError) as caught:
        load_recipe(path, SYSTEMS, profile, sets)
    return str(caught.value).splitlines()


def with_lines(path, text, old=""):
    content = RECIPE.replace(old, text) if old else RECIPE + text
    with open(path, "w") as file:
        file.write(content)
    return path


def test_base_settings(path):
    settings = load_recipe(path, SYSTEMS).settings
    assert (settings.make.size, settings.train.steps, settings.train.lr, settings.report.title) == (32, 20, 1e-3, "Toy")
    assert list(settings.sections) == ["make", "train", "report"]


def test_profile_and_overrides_in_order_of_strength(path):
    recipe = load_recipe(path, SYSTEMS, "other", ["train.steps=7", "train.lr=1e-5", "make.window=[0, 1]", "run.seed=3"])
    settings = recipe.settings
    assert (settings.make.size, settings.train.steps, settings.train.lr) == (64, 7, 1e-5)
    assert settings.make.window == (0.0, 1.0) and settings.run.seed == 3
    assert (recipe.profile, recipe.header.profiles) == ("other", ("demo", "other"))


def test_deep_override_is_not_undone_by_a_shallow_one(path):
    assert load_recipe(path, SYSTEMS, "demo").settings.train.part.model_dump() == {"name": "small", "width": 3}


def test_settings_are_frozen(path):
    settings = load_recipe(path, SYSTEMS).settings
    with pytest.raises(ValidationError):
        settings.train.lr = 3.0


def test_resolved_recipe_loads_to_the_same_settings(path, tmp_path):
    recipe = load_recipe(path, SYSTEMS, "demo", ["train.lr=1e-5", "make.kind=odd"])
    (tmp_path / "resolved.yaml").write_text(resolved_text(recipe, device="cpu"))
    again = load_recipe("./resolved.yaml", SYSTEMS)
    assert again.settings == recipe.settings
    assert again.profile == "demo"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("tran.lr=1", "tran is not a section; did you mean train?"),
        ("lr=1", "lr is not a section; did you mean train.lr?"),
        ("train.bacth_size=8", "train.bacth_size is not a setting; did you mean batch_size?"),
        ("make.lr=1", "make.lr is not a setting; did you mean train.lr?"),
        ("train.part.witdh=8", "train.part.witdh is not a setting; did you mean width?"),
        ("report.zzz=8", "report.zzz is not a setting; wanted title"),
        ("make.size=48", "make.size: 48 is not a power of two"),
        ("make.kind=evven", "make.kind is \"evven\", wanted 'even' or 'odd'; did you mean even?"),
        ("make.window=[1, 2, 3]", "make.window is [1, 2, 3], wanted at most 2 items"),
        ("make.window=[1, a]", 'make.window[1] is "a", wanted a number'),
        ("train.lr=fast", 'train.lr is "fast", wanted a number'),
        ("train.lr=-1", "train.lr is -1, wanted greater than 0"),
        ("train.lr=.nan", "train.lr is NaN, wanted a finite number"),
        ("train.lr=", "train.lr is null, wanted a number"),
        ("train.steps=1.5", "train.steps is 1.5, wanted a whole number"),
        ("train.steps='4'", 'train.steps is "4", wanted a whole number'),
        ("train.steps=true", "train.steps is true, wanted a whole number"),
        ("train.part=small", 'train.part is "small", wanted settings written name: value'),
        ("report.title=[1]", "report.title is [1], wanted text or a whole number"),
        ("train.lr.x=1", "train.lr is a single value, it has no x"),
        ("train=1", "train is not written section.setting"),
        ("train.lr=[1", "line 1: not valid YAML (expected ',' or ']', but got '<stream end>')"),
        ("train.lr=!!python/name:os.system x", "line 1: the tag"),
    ],
)
def test_override_mistakes_say_where_what_and_what_was_wanted(path, override, line):
    (found,) = mistakes(path, override)
    assert found.startswith(f"--set {override}: {line}")


def test_override_without_a_value(path):
    assert mistakes(path, "train.lr") == ["--set train.lr: wanted section.setting=value"]


def test_the_last_writer_of_a_value_is_named(path):
    (line,) = mistakes(path, "train.part={width: wide}", profile="demo")
    assert line.startswith("--set train.part={width: wide}: train.part.width is")
    (line,) = mistakes(path, "train.lr=slow", "train.lr=fast", profile="demo")
    assert line.startswith("--set train.lr=fast: ")


def test_rule_over_several_settings_is_one_line(path):
    assert mistakes(path, "train.batch_size=3") == [
        "toy.yaml with --set train.batch_size=3: train: batch_size 3 is odd"
    ]


@pytest.mark.parametrize(
    ("sets", "written"),
    [
        (("train.part.width=8",), "toy.yaml: profiles.demo with --set train.part.width=8"),
        (
            ("train.part.width=8", "train.part.name=small"),
            "toy.yaml: profiles.demo with --set train.part.width=8, --set train.part.name=small",
        ),
        (("train.part={name: small, width: 8}",), "--set train.part={name: small, width: 8}"),
        (
            ("train.part={name: small}", "train.part.width=8"),
            "--set train.part={name: small}, --set train.part.width=8",
        ),
    ],
)
def test_settings_that_contradict_name_every_place_they_were_written_at(path, sets, written):
    (line,) = mistakes(path, *sets, profile="demo")
    assert line == f"{written}: train.part: name small wants a width below 8, not 8"


def test_a_rule_over_a_section_names_the_profile_whose_setting_it_breaks(path):
    with_lines(path, "train.batch_size: 5\n    make.size: 64", "make.size: 64")
    where = "toy.yaml: profiles.other"
    assert mistakes(path, profile="other") == [f"{where}: train: batch_size 5 is odd"]
    (line,) = mistakes(path, "train.lr=1", profile="other")
    assert line == f"{where} with --set train.lr=1: train: batch_size 5 is odd"


def test_a_shipped_profile_is_not_blamed_for_what_the_command_sets():
    with pytest.raises(UsageError) as caught:
        plan_recipe("cub_layered", profile="smoke", sets=("train_gan.objective.c_dim=10",))
    assert str(caught.value) == (
        "recipes/cub_layered.yaml: profiles.smoke with --set train_gan.objective.c_dim=10: train_gan.objective: "
        "c_dim 10 is not a multiple of group 3"
    )


def test_mistakes_in_the_file_and_its_profiles(path):
    with_lines(path, "make: {sizze: 32}", "make: {size: 32}")
    assert mistakes(path) == ["toy.yaml: make.sizze is not a setting; did you mean size?"]
    with_lines(path, "train.stepz: 4", "train.steps: 4")
    assert mistakes(path, profile="other") == [
        "toy.yaml: profiles.other: train.stepz is not a setting; did you mean steps?"
    ]
    with_lines(path, "train: {lr: 1e-3}", "train: {steps: 20, lr: 1e-3}")
    assert mistakes(path) == ["toy.yaml: train.steps is missing (steps of training)"]
    with_lines(path, "reprot: {title: x}\n")
    assert mistakes(path) == ["toy.yaml: reprot is not a section; did you mean report?"]


def test_all_mistakes_at_once(path):
    with_lines(path, "make: {sizze: 32}", "make: {size: 32}")
    found = mistakes(path, "train.lr=fast", "tran.x=1", "x", profile="demmo")
    assert len(found) == 5
    assert "toy.yaml: there is no profile demmo; did you mean demo?" in found


@pytest.mark.parametrize(
    ("text", "old", "line"),
    [
        ("make: {size: 64}\n", "", "toy.yaml: line 17: make is written twice; keep one"),
        ("make: {size: 32, size: 64}", "make: {size: 32}", "toy.yaml: line 7: size is written twice; keep one"),
        ("make: [1, 2", "make: {size: 32}", "toy.yaml: line"),
        ("make: !!python/object/apply:os.system ['true']", "make: {size: 32}", "toy.yaml: line 7: the tag"),
        ("make: &m [*m]", "make: {size: 32}", "toy.yaml: not plain data"),
        ("system: tooy", "system: toy", "toy.yaml: there is no system tooy; did you mean toy?"),
        ("hours: [1]", "hours: 0.001", "toy.yaml: hours is [1], wanted text"),
        ("  bad: 3\n", "", "toy.yaml: profiles.bad is 3, wanted section.setting: value lines"),
    ],
)
def test_file_mistakes_are_one_line(path, text, old, line):
    (found,) = mistakes(with_lines(path, text, old))
    assert found.startswith(line)


def test_files_that_are_no_recipe(tmp_path):
    for content in (b"", b"just words", b"\xff\xfe\x00"):
        (tmp_path / "x.yaml").write_bytes(content)
        assert len(mistakes(str(tmp_path / "x.yaml"))) == 1


def test_unknown_recipe():
    with pytest.raises(UsageError, match="there is no recipe nothing_near"):
        find_recipe("nothing_near")
    with pytest.raises(UsageError, match="does not exist"):
        find_recipe("no/such/file.yaml")
    name = list_recipes()[0].name
    with pytest.raises(UsageError, match=f"did you mean {name}"):
        find_recipe(name[:-2] + "xn")


def test_shipped_recipes_say_what_they_are():
    headers = list_recipes()
    assert headers and all(h.name == h.file.stem and h.system and h.dataset and h.source and h.hours for h in headers)
    assert all(h.file.parent == recipe_folder() for h in headers)


def test_yaml_is_version_1_2():
    assert parse_yaml("[1e-3, 1E5, yes, off, 010]", "x") == [0.001, 100000.0, "yes", "off", 10]


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        (
            ("annotate.annotator=inversion", "train_segmenters.few_slices=1"),
            "annotate.annotator=inversion wants 4 real labelled slices (annotate.num_images), train_segmenters."
            "few_patients=2 times train_segmenters.few_slices=1 are 2; raise those, or lower annotate.num_images",
        ),
        (
            ("annotate.num_images=1", "train_interpreter.labeller=auto"),
            "train_interpreter.labeller=auto cross-validates, which annotate.num_images=1 does not allow",
        ),
        (
            (
                "annotate.num_images=1",
                "train_interpreter.labeller=features",
                "train_interpreter.calibration=temperature",
            ),
            "train_interpreter.calibration=temperature cross-validates, which annotate.num_images=1 does not allow",
        ),
        (("report.audit_canaries=1001",), "report.audit_canaries"),
        (("train_gan.batch_size=1000",), "total_kimg 0.32 ends before one step of batch_size 1000"),
        (
            ("synthesize.filter=none", "synthesize.filter_portion=0.5"),
            "filter_portion 0.5 leaves out pairs by no filter",
        ),
    ],
)
def test_settings_of_two_stages_that_contradict_are_refused_before_any_work(sets, reason):
    with pytest.raises(UsageError) as caught:
        plan_recipe("segthor_datasetgan", profile="smoke", sets=sets)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sets",
    [
        ("annotate.annotator=inversion",),  # four slices, and two patients' two each
        ("annotate.num_images=2", "train_interpreter.labeller=auto"),  # two folds, though five are asked for
        ("annotate.num_images=1", "train_interpreter.labeller=features"),
        ("report.audit_canaries=1000",),
    ],
)
def test_settings_at_the_edge_are_accepted(sets):
    plan_recipe("segthor_datasetgan", profile="smoke", sets=sets)
