"""What surrounds a training step."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import Tensor, nn

from medseg_gan.errors import MedsegError
from medseg_gan.training.engine import STATS, Handler, Statistics, read_stats, run_training
from medseg_gan.training.handlers import WARNINGS, Advice, Checkpoints, Look, Measurement, Rows, SampleGrid
from medseg_gan.training.watch import Watch


class Toy:
    """A training with a state: a weight that adds up numbers drawn from (0, iteration)."""

    def __init__(self, folder: Path, stop_at: int | None = None, nan_at: int | None = None) -> None:
        self.folder, self.stop_at, self.nan_at = folder, stop_at, nan_at
        self.net = nn.Linear(1, 1)
        nn.init.zeros_(self.net.weight)
        nn.init.zeros_(self.net.bias)

    @torch.no_grad()
    def step(self, engine: Engine, batch: Tensor) -> dict[str, Tensor]:
        k = engine.state.iteration
        if k == self.stop_at:
            raise KeyboardInterrupt
        self.net.weight += torch.rand([], generator=torch.Generator().manual_seed(k)) * batch
        terms = {"loss": self.net.weight.detach().sum().clone()}
        if k % 4 == 0:
            terms["penalty"] = torch.tensor(float("nan") if k == self.nan_at else k)
        return terms

    def train(self, total: int = 20, settings: Any = None, extras: Any = None, **options: Any) -> int:
        """Rows every third, sample grids every tenth, checkpoints every fifth iteration."""
        rest = {name: options.pop(name) for name in ("scalars", "images", "name", "remedy") if name in options}
        return run_training(
            self.step,
            {"net": self.net},
            lambda done: (float(k) for k in range(done, 10**6)),
            handlers(**options),
            folder=self.folder,
            settings=settings or {"lr": 1},
            total=total,
            batch_size=8,
            extras=extras,
            **rest,
        )


class Judge(Watch):
    """Says what a function says."""

    def __init__(self, judge: Callable[[Any], str | None]) -> None:
        super().__init__((), 0.5)
        self.judge = judge  # type: ignore[method-assign,assignment]


def handlers(
    warn: Any = None,
    look: Any = None,
    samples: Any = None,
    values: Any = None,
    measure: Any = None,
    log_every: int = 3,
    measure_every: int = 1,
    keep: int = 2,
) -> list[Handler]:
    found: list[Handler] = [Advice(Judge(warn))] if warn else []
    found += [Look(look)] if look else []
    found.append(Rows(log_every))
    found += [SampleGrid(samples, 10, values=values or (lambda images: {}))] if samples else []
    found += [Measurement(measure, measure_every)] if measure else []
    return [*found, Checkpoints(5, keep)]


def rows_without_speed(folder: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "img_per_s"} for row in read_stats(folder)]


@pytest.mark.parametrize("stop_at", [1, 5, 6, 14, 20])
def test_interrupted_run_equals_uninterrupted(tmp_path: Path, stop_at: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    once = Toy(whole)
    once.train()
    with pytest.raises(KeyboardInterrupt):
        Toy(broken, stop_at=stop_at).train()
    again = Toy(broken)
    again.train()
    assert torch.equal(once.net.weight, again.net.weight)
    assert rows_without_speed(whole) == rows_without_speed(broken)


def test_rows_hold_means_of_the_steps_since_the_last(tmp_path: Path) -> None:
    Toy(tmp_path).train(scalars=lambda: {"p": torch.tensor(0.5)})
    rows = read_stats(tmp_path)
    assert [row["iteration"] for row in rows] == [3, 5, 6, 9, 10, 12, 15, 18, 20]
    assert all(row["images"] == 8 * row["iteration"] and row["p"] == 0.5 for row in rows)
    assert [row.get("penalty") for row in rows] == [None, 4, None, 8, None, 12, None, 16, 20]


def test_a_cut_line_and_rows_past_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Toy(tmp_path, stop_at=10).train()
    assert read_stats(tmp_path)[-1]["iteration"] == 9
    with (tmp_path / STATS).open("a") as file:
        file.write('{"iteration": 9, "im')
    Toy(tmp_path).train()
    assert [row["iteration"] for row in read_stats(tmp_path)] == [3, 5, 6, 9, 10, 12, 15, 18, 20]


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    Toy(tmp_path).train(keep=2)
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["checkpoint-000000120.pt", "checkpoint-000000160.pt"]


def test_sample_sheets_are_written(tmp_path: Path) -> None:
    Toy(tmp_path).train(samples=lambda: torch.zeros(8, 1, 4, 4))
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["000000080.png", "000000160.png"]


def test_a_term_that_is_not_finite_stops_before_the_next_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match=r"penalty is nan at step 8 \(64 images\)"):
        Toy(tmp_path, nan_at=8).train(log_every=100)
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint-000000040.pt"]


def test_a_weight_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    nn.init.constant_(toy.net.bias, float("inf"))
    with pytest.raises(MedsegError, match=r"net\.bias is not finite at step 5"):
        toy.train()
    assert not list(tmp_path.glob("*.pt"))


def test_other_settings_are_refused(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.train()
    with pytest.raises(MedsegError, match="lr: 1 -> 2"):
        toy.train(settings={"lr": 2})


def test_advice_is_given_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Toy(tmp_path).train(warn=lambda row: "try more" if row["iteration"] > 5 else None, name="toy")
    assert capsys.readouterr().err.count("toy: try more") == 1


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    Toy(tmp_path).train()
    before = (tmp_path / STATS).read_text()
    toy = Toy(tmp_path, stop_at=1)
    toy.train()
    assert (tmp_path / STATS).read_text() == before
    assert json.loads(before.splitlines()[-1])["iteration"] == 20


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(statistics: Statistics) -> dict[str, float]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Statistics, "flush", full)
    with pytest.raises(MedsegError, match="disk full while writing"):
        Toy(tmp_path).train()


def test_settings_that_a_file_gives_back_as_lists_are_the_same(tmp_path: Path) -> None:
    settings = {"range": (0.7, 1.3), "inner": {"sizes": (1, 2)}}
    Toy(tmp_path).train(settings=settings)
    assert Toy(tmp_path).train(settings=settings) == 20
    with pytest.raises(MedsegError, match="range:"):
        Toy(tmp_path).train(settings=settings | {"range": (0.7, 1.4)})


def test_each_iteration_done_is_looked_at_and_may_end_the_run(tmp_path: Path) -> None:
    """A look that ends the run comes before the iteration's checkpoint, so that the next run looks again."""
    looked: list[int] = []

    def look(iteration: int) -> None:
        looked.append(iteration)
        if iteration == 10:
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            Toy(tmp_path).train(look=look)
    assert looked == [*range(1, 11), *range(6, 11)]
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint-000000040.pt"]


def test_measurements_have_rows_of_their_own_and_are_judged(tmp_path: Path) -> None:
    judged: list[dict[str, float]] = []
    Toy(tmp_path).train(
        samples=lambda: torch.zeros(8, 1, 4, 4),
        values=lambda images: {"count": len(images)},
        measure=lambda images_seen: {"distance": 1 / images_seen},
        measure_every=8,
        warn=lambda row: judged.append(dict(row)),
    )
    rows = read_stats(tmp_path)
    assert judged == rows
    assert [row["images"] for row in rows if "count" in row] == [80, 160]
    assert [(row["images"], row["distance"]) for row in rows if "distance" in row] == [
        (64, 1 / 64),
        (128, 1 / 128),
        (160, 1 / 160),
    ]
    assert all(row.keys() == {"iteration", "images", "distance"} for row in rows if "distance" in row)


def test_an_interrupted_run_has_the_same_measurements(tmp_path: Path) -> None:
    options: dict[str, Any] = {"measure": lambda images_seen: {"distance": images_seen**0.5}, "measure_every": 3}
    Toy(tmp_path / "whole").train(**options)
    with pytest.raises(KeyboardInterrupt):
        Toy(tmp_path / "broken", stop_at=14).train(**options)
    Toy(tmp_path / "broken").train(**options)
    assert rows_without_speed(tmp_path / "whole") == rows_without_speed(tmp_path / "broken")


def test_extras_are_saved_and_may_be_missing_from_a_checkpoint(tmp_path: Path) -> None:
    extra = nn.Linear(1, 1)
    with pytest.raises(KeyboardInterrupt):
        Toy(tmp_path, stop_at=7).train()
    Toy(tmp_path).train(extras={"extra": extra})
    again = nn.Linear(1, 1)
    assert Toy(tmp_path).train(extras={"extra": again}) == 20
    assert torch.equal(extra.weight, again.weight)


def test_warnings_are_kept_and_not_told_again_by_a_resumed_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(row: Any) -> str | None:
        return "try more" if row["iteration"] > 5 else None

    with pytest.raises(KeyboardInterrupt):
        Toy(tmp_path, stop_at=10).train(warn=warn)
    Toy(tmp_path).train(warn=warn)
    assert (tmp_path / WARNINGS).read_text() == "try more\n"
    assert capsys.readouterr().err.count("try more") == 1


def test_images_are_counted_as_the_training_says(tmp_path: Path) -> None:
    """Steps that see no real image, here every second, count for none: in rows, in their speed, in messages."""
    whole = tmp_path / "whole"
    Toy(whole).train(images=lambda iteration: 8 * (iteration // 2), measure=lambda seen: {"seen": seen})
    rows = read_stats(whole)
    assert all(row["images"] == 8 * (row["iteration"] // 2) for row in rows)
    assert all(row["seen"] == row["images"] for row in rows if "seen" in row)
    Toy(tmp_path / "none").train(images=lambda iteration: 0)
    assert {row["img_per_s"] for row in read_stats(tmp_path / "none")} == {0}
    with pytest.raises(MedsegError, match=r"at step 8 \(32 images\)"):
        Toy(tmp_path / "broken", nan_at=8).train(images=lambda iteration: 8 * (iteration // 2))


def test_what_to_try_is_what_the_system_says(tmp_path: Path) -> None:
    """A training without R1 is not told to change its weight."""
    with pytest.raises(MedsegError, match="try a shorter nose") as told:
        Toy(tmp_path, nan_at=8).train(remedy="a shorter nose")
    assert "r1_gamma" not in str(told.value)
    toy = Toy(tmp_path / "weights")
    nn.init.constant_(toy.net.bias, float("inf"))
    with pytest.raises(MedsegError, match=r"sound; try a lower lr or precision fp32$"):
        toy.train()
