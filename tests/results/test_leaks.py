import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automed.auditing.cost import cost_lines
from automed.auditing.finding import Audit, Cost, Leak
from automed.auditing.material import load
from automed.config import to_flat
from automed.data.folds import make_folds
from automed.data.manifest import Item, Manifest
from automed.data.phantom import draw_phantom
from automed.results.leaks import Plan, _between_folds, _Deal, _held_out, cost_of_leaks
from automed.results.retrain import Retrained
from automed.study.experiment import read_experiment, shipped

SPACE = """
study: {{name: s, folds: 3, seed: 1}}
data: {{group: {group}, test: {test}}}
space:
  model: {{name: small_cnn, image_size: 32}}
  optim: {{name: adamw, lr: {{low: 1e-3, high: 1.6e-2, log: true}}}}
  train: {{batch: 16, epochs: 8, patience: 2}}
  preprocess: {{channels: 1}}
"""


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """Patients of four slices each, of which some stand in Testing too, as copies and as other slices."""
    root = draw_phantom(tmp_path / "leaky", patients=48, slices=4, size=48)
    for file in sorted((root / "Training").rglob("P*_01.png"))[::2]:
        shutil.copy(file, root / "Testing" / file.parent.name / file.name)
    return root


def audited(
    tmp_path: Path, shell: Callable[..., Any], data: str, group: str, test: str, *, code: int
) -> tuple[Cost, str]:
    (tmp_path / "space.yaml").write_text(SPACE.format(group=group, test=test))
    rest = tmp_path / "temporary"
    rest.mkdir()
    before = set(tmp_path.rglob("*"))
    said = shell(tmp_path, TMPDIR=str(rest)).run(
        "audit", data, "--space", "space.yaml", "--cost-of-leaks", "--json", "a.json", "--html", "a.html",
        code=code,
    )  # fmt: skip
    made = {file for file in set(tmp_path.rglob("*")) - before if rest not in file.parents}
    assert made == {tmp_path / "a.json", tmp_path / "a.html"}
    assert not list(rest.glob("automed*")), "what it trained is gone"
    cost = Audit.read(tmp_path / "a.json").cost
    assert cost is not None
    assert (
        "What the leaks are worth" in said and "What the leaks are worth" in (tmp_path / "a.html").read_text()
    )
    return cost, said


def test_planted_leaks_are_worth_something(tmp_path: Path, shell: Callable[..., Any], leaky: Path) -> None:
    cost, said = audited(tmp_path, shell, leaky.name, '{pattern: "^(P[0-9]+)_"}', "Testing", code=1)
    assert (cost.folds, cost.epochs, cost.network) == (3, 8, "small_cnn at 32 px")
    folds, held_out = cost.leaks
    assert folds.name == "cross-validated" and folds.pictures == folds.leaked
    assert folds.difference is not None and folds.difference.low is not None
    assert folds.difference.value > 0.1 and folds.difference.low > 0
    assert "the score is too good by that" in said
    assert held_out.name == "held out (Testing, official)"
    assert held_out.leaked == len(list((leaky / "Training").rglob("P*_01.png"))) // 2
    assert held_out.difference is not None and held_out.difference.value > 0.1


def test_groups_that_share_nothing_are_worth_nothing(tmp_path: Path, shell: Callable[..., Any]) -> None:
    root = draw_phantom(tmp_path / "set", patients=160, slices=1, size=48)
    files = sorted(root.rglob("*.png"))
    rng = np.random.default_rng(0)
    persons = rng.permutation(len(files)) // 4
    lines = [
        f"{file.relative_to(tmp_path)},{file.parent.name},{person}"
        for file, person in zip(files, persons.tolist(), strict=True)
    ]
    (tmp_path / "set.csv").write_text("\n".join(["path,label,person", *lines]))
    cost, said = audited(tmp_path, shell, "set.csv", "{column: person}", "none", code=0)
    (leak,) = cost.leaks
    assert leak.leaked == leak.pictures == 160 and cost.groups == 40
    assert (
        leak.difference is not None and leak.difference.low is not None and leak.difference.high is not None
    )
    assert leak.difference.low < 0 < leak.difference.high
    assert "which chance could give as well" in said


def test_where_nothing_belongs_together_one_training_is_both(tmp_path: Path) -> None:
    root = draw_phantom(tmp_path / "set", patients=32, slices=1, size=32)
    heard: list[tuple[int, int]] = []
    plan = Plan(folds=2)
    cost = cost_of_leaks(load(root), [], plan, on_epoch=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (16, 16)
    (folds, held_out) = cost.leaks
    assert folds.leaked == held_out.leaked == 0 and folds.leaky == folds.clean
    assert "trained once" in cost_lines(cost)[0] and "nothing leaks" in cost_lines(cost)[1]


def deal(*, seen: int) -> _Deal:
    """200 patients of two pictures each in two classes, 60 more held out; `seen` of these are among them."""
    items = [Item(f"{row}.png", row // 2 % 2, f"p{row // 2}", "Training", f"d{row}") for row in range(400)]
    items += [
        Item(f"t{row}.png", row % 2, f"p{row}" if row < seen else f"t{row}", "Testing", f"t{row}")
        for row in range(60)
    ]
    together = Manifest(Path("nowhere"), "folder", ("no", "yes"), tuple(items), "Testing")
    apart = dataclasses.replace(together, apart=True)
    return _Deal(
        together.groups, (apart, make_folds(apart, 3, 0)), (together, make_folds(together, 3, 0))
    )  # fmt: skip


def retrained(of: _Deal, side: str, right: float) -> Retrained:
    """Predictions that are right for a share of the patients, the same ones on both sides."""
    manifest, folds = getattr(of, side)
    rows = manifest.search
    knows = np.random.default_rng(5).random(1000) < right
    said = np.where(knows[of.groups[rows]], manifest.labels[rows], 1 - manifest.labels[rows])
    probability, fold = np.eye(2)[said], folds.test_fold[rows]
    scores = [float((said == manifest.labels[rows])[fold == number].mean()) for number in range(3)]
    return Retrained(rows, fold, probability, tuple(scores))


def test_the_interval_is_of_groups_and_of_the_difference() -> None:
    of = deal(seen=0)
    plan = Plan(metric="accuracy")
    leak = _between_folds(of, retrained(of, "apart", 0.9), retrained(of, "together", 0.7), plan)
    assert leak.leaky is not None and leak.clean is not None and leak.difference is not None
    assert leak.leaky.value == pytest.approx(0.9, abs=0.05) and leak.clean.value == pytest.approx(
        0.7, abs=0.06
    )
    assert leak.difference.low is not None and leak.difference.high is not None
    assert leak.difference.low < 0.2 < leak.difference.high
    assert leak.clean.high is not None and leak.clean.low is not None
    # A patient's two pictures are right or wrong together: 200 patients, not 400 pictures.
    assert leak.clean.high - leak.clean.low > 2 * 1.96 * np.sqrt(0.7 * 0.3 / 200) * 0.95
    same = _between_folds(of, retrained(of, "apart", 0.8), retrained(of, "together", 0.8), plan)
    assert (
        same.difference is not None and same.difference.low is not None and same.difference.high is not None
    )
    assert same.difference.low <= 0 <= same.difference.high


def held_out(of: _Deal, *, seen: int) -> Leak:
    """What networks that know half of the new pictures, and all they have seen, score held out."""
    labels = of.together[0].labels[of.together[0].test]
    right = np.arange(60) // 2 % 2 == 0
    right[:seen] = True
    return _held_out(of, np.eye(2)[np.where(right, labels, 1 - labels)], Plan(metric="accuracy"))


def test_held_out_pictures_are_scored_with_and_without_what_was_seen() -> None:
    leak = held_out(deal(seen=20), seen=20)
    assert (leak.pictures, leak.leaked, leak.left_out) == (60, 20, [])
    assert leak.leaky is not None and leak.clean is not None and leak.difference is not None
    assert leak.leaky.value == pytest.approx(40 / 60) and leak.clean.value == pytest.approx(0.5)
    assert leak.difference.value == pytest.approx(1 / 6)
    assert leak.difference.low is not None and leak.difference.low > 0
    assert leak.new == {"no": 20, "yes": 20}
    nothing = held_out(deal(seen=0), seen=0)
    assert nothing.difference is not None and nothing.difference.value == nothing.difference.low == 0
    gone = held_out(deal(seen=60), seen=60)
    assert gone.clean is gone.difference is None and gone.leaky is not None


def test_a_class_without_a_new_picture_is_left_out_on_both_sides() -> None:
    of = deal(seen=0)
    groups = of.groups.copy()
    groups[400 + 1 :: 2] = groups[0]  # all of class 1 were seen
    leak = held_out(dataclasses.replace(of, groups=groups), seen=0)
    assert leak.left_out == ["yes"] and leak.pictures == 30 and leak.leaked == 0
    assert leak.difference is not None and leak.difference.value == 0


def test_the_plan_is_the_plainest_of_a_space() -> None:
    plan = Plan.of(read_experiment(shipped("brain_cpu")))
    assert plan.config is not None and plan.folds == 3
    flat = to_flat(plan.config)
    assert flat["model.name"] == "tf_efficientnet_lite0" and flat["optim.lr"] == 1e-3
    assert flat["train.patience"] == 0
    assert Plan.of(None) == Plan()


def test_folds_that_cannot_be_dealt_are_one_clear_error(tmp_path: Path, shell: Callable[..., Any]) -> None:
    draw_phantom(tmp_path / "set", patients=8, slices=1, size=32)
    before = sorted(tmp_path.rglob("*"))
    said = shell(tmp_path).run("audit", "set", "--cost-of-leaks", "--json", "a.json", code=2)
    assert "fewer than 3 folds" in said
    assert sorted(tmp_path.rglob("*")) == before
