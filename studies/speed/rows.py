"""The rows of the table: what is trained in each, as a study that both sides can work on."""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from automed.config import from_flat, to_flat
from automed.data.folds import make_folds
from automed.data.manifest import Manifest, read_manifest
from automed.settings import Scalar
from automed.space.knob import Knob, word
from automed.space.sample import SearchSpace, sample
from automed.study.experiment import Experiment, read_experiment, shipped
from automed.study.open import open_study

HEAD = """study: {{name: speed, folds: {folds}, seed: {seed}, metric: macro_f1, pruner: none}}
data: {{group: none, test: Testing}}
weights: {{path: {weights}}}
"""
LITE0 = "model: {name: tf_efficientnet_lite0, pretrained: true, image_size: 96}"


@dataclass(frozen=True)
class Row:
    """One line of the table. `space` is the YAML below `space:`; `promise` is what the ratio has to be."""

    name: str
    about: str
    space: str
    epochs: int
    promise: float
    folds: int = 5

    def text(self, seed: int, weights: Path, epochs: int | None = None) -> str:
        """The file of its study."""
        lines = [*self.space.strip().splitlines(), f"train: {{{self._train(epochs)}}}"]
        head = HEAD.format(folds=self.folds, seed=seed, weights=json.dumps(str(weights)))
        starts = "\nstart_from: [{optim.lr: 1e-3}, {optim.lr: 2e-3}, {optim.lr: 3e-3}]\n"
        return head + "space:\n  " + "\n  ".join(lines) + (starts if "lr: [" in self.space else "\n")

    def _train(self, epochs: int | None) -> str:
        views = ", views: 8" if self.name == "views" else ""
        return f"batch: 32, epochs: {epochs or self.epochs}{views}"


ROWS = (
    Row("plain", "small plain net from scratch, light augmentation",
        "model: {name: small_cnn, image_size: 96}\noptim: {lr: 2e-3, weight_decay: 1e-2}\n"
        "schedule: {name: cosine, warmup: 1}\naugment: {policy: light}", 6, 2.0),
    Row("finetune", "lite0 pretrained, fully fine-tuned, light augmentation",
        f"{LITE0}\noptim: {{lr: 1e-3, weight_decay: 1e-2}}\nschedule: {{name: cosine}}\n"
        "augment: {policy: light}", 2, 1.5),
    Row("frozen75", "lite0, three quarters frozen, no augmentation",
        f"{LITE0}\nfreeze: {{depth: 0.75}}\noptim: {{lr: 1e-3, weight_decay: 1e-2}}\n"
        "schedule: {name: cosine}", 4, 2.5),
    Row("frozen100", "lite0, all frozen, no augmentation",
        f"{LITE0}\nfreeze: {{depth: 1}}\noptim: {{lr: [1e-3, 2e-3, 3e-3], weight_decay: 1e-2}}\n"
        "schedule: {name: cosine}", 10, 15.0),
    Row("views", "lite0, all frozen, 8 kept views against live light augmentation",
        f"{LITE0}\nfreeze: {{depth: 1}}\noptim: {{lr: 1e-3, weight_decay: 1e-2}}\n"
        "schedule: {name: cosine}\naugment: {policy: light}", 16, 6.0),
)  # fmt: skip


def share_of(data: Path, share: float, seed: int, out: Path) -> Path:
    """A folder of links to a share of every class of every split; `data` itself where all is wanted."""
    if not data.is_dir():
        print(f"--data: no folder {data}", file=sys.stderr)
        sys.exit(2)
    if share >= 1:
        return data
    members: dict[Path, list[Path]] = defaultdict(list)
    for file in sorted(data.glob("*/*/*")):
        members[file.parent.relative_to(data)].append(file)
    rng = np.random.default_rng(seed)
    for place, files in members.items():
        (out / place).mkdir(parents=True, exist_ok=True)
        for row in sorted(rng.choice(len(files), max(1, round(share * len(files))), replace=False)):
            link = out / place / files[row].name
            if not link.is_symlink():
                link.symlink_to(files[row])
    return out


@dataclass(frozen=True)
class Case:
    """A study's folder, ready to be worked on by either side, and what its trials are.

    `configs` are whole configurations by dotted names, `starts` the searched knobs of each alone.
    """

    folder: Path
    data: Path
    weights: Path
    seed: int
    manifest: Manifest
    configs: tuple[dict[str, Scalar], ...]
    starts: tuple[dict[str, Scalar], ...]


def prepare(text: str, folder: Path, data: Path, seed: int, manifest: Manifest | None = None) -> Case:
    """Open the study that `text` describes, and let go of it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.with_suffix(".yaml")
    file.write_text(text, encoding="utf-8")
    experiment = read_experiment(file)
    manifest = manifest or read_manifest(experiment.data, data, folds=experiment.study.folds)
    folds = make_folds(manifest, experiment.study.folds, 0)  # the same for all seeds
    open_study(experiment, manifest, folds, folder=folder).close()
    configs, starts = tried(experiment)
    weights = Path(experiment.weights.path or ".")
    return Case(folder, data, weights, seed, manifest, configs, starts)


def tried(
    experiment: Experiment,
) -> tuple[tuple[dict[str, Scalar], ...], tuple[dict[str, Scalar], ...]]:
    """The whole configurations that a file begins with, by dotted names, and what each says itself."""
    starts = experiment.space.start_from or (() if experiment.space.searched else ({},))
    whole = [sample(experiment.space, lambda knob, values=one: values[knob.name]) for one in starts]
    return tuple(to_flat(from_flat(one)) for one in whole), tuple(starts)


def search_text(trials: int, seed: int, weights: Path) -> str:
    """`brain_cpu.yaml` with as many first trials, drawn at random, as it has trials; nothing is pruned."""
    text = shipped("brain_cpu").read_text(encoding="utf-8").partition("\nstart_from:")[0]
    file = shipped("brain_cpu")
    space = read_experiment(file).space
    rng = random.Random(seed)
    drawn: list[dict[str, Scalar]] = []
    while len(drawn) < trials:
        values = {name: value for name, value in draw(space, rng).items() if name not in space.fixed}
        drawn.append({name: value for name, value in values.items() if _searched(space, name)})
    entries = [
        "  - {" + ", ".join(f"{name}: {word(value)}" for name, value in one.items()) + "}" for one in drawn
    ]
    text = text.replace("  trials: 24\n", f"  trials: {trials}\n  seed: {seed}\n  pruner: none\n")
    assert "pruner: none" in text
    where = f"\nweights: {{path: {json.dumps(str(weights))}}}\n"
    return f"{text}\n{where}\nstart_from:\n" + "\n".join(entries) + "\n"


def _searched(space: SearchSpace, name: str) -> bool:
    return any(knob.name == name for knob in space.searched)


def draw(space: SearchSpace, rng: random.Random) -> dict[str, Scalar]:
    """One configuration at random."""
    return sample(space, lambda knob: _value(knob, rng))


def _value(knob: Knob, rng: random.Random) -> Scalar:
    points: Sequence[Scalar] = knob.choices or (knob.candidates() if knob.step or knob.kind == "int" else ())
    if points:
        return rng.choice(list(points))
    assert knob.low is not None and knob.high is not None
    if knob.log:
        value = float(np.exp(rng.uniform(np.log(knob.low), np.log(knob.high))))
    else:
        value = rng.uniform(knob.low, knob.high)
    return float(f"{min(max(value, knob.low), knob.high):.6g}")
