"""The search under attack: makes the study in FOLDER or goes on with it, up to its total.

It is what `automed search` does, less the tries of the networks and the verdict; its child is `child.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from automed.data.folds import make_folds
from automed.data.manifest import read_manifest
from automed.data.phantom import draw_phantom
from automed.errors import AutomedError
from automed.study.experiment import read_experiment
from automed.study.launch import launch
from automed.study.open import open_study

CHILD = (sys.executable, str(Path(__file__).with_name("child.py")))

SPACE = """
study: {{name: chaos, folds: 3, seed: {seed}, pruner: kfold}}
data: {data}
space:
  model: {{name: [small_cnn, test_vit], image_size: 32}}
  dropout: {{placement: [none, head], rate: {{low: 0.1, high: 0.5}}}}
  optim:
    name: [adamw, sgd]
    lr: {{low: 3e-4, high: 1e-2, log: true}}
    weight_decay: {{low: 1e-4, high: 1e-1, log: true}}
    momentum: {{low: 0.8, high: 0.95, when: {{optim.name: sgd}}}}
  schedule: {{name: [constant, cosine]}}
  train: {{batch: 32, epochs: [3, 5]}}
  loss: {{name: [cross_entropy, focal]}}
  preprocess: {{channels: 1}}
  augment: {{policy: [none, light]}}
start_from:
  - {{model.name: small_cnn, optim.name: adamw}}
  - {{model.name: test_vit, optim.name: adamw}}
"""
BREAST = "{group: none, test: test}"
PHANTOM = "{group: {pattern: '^(P[0-9]+)_'}, test: Testing}"


def prepare(folder: Path, data: Path | None, seed: int) -> tuple[Path, Path]:
    """Write the space file into `folder`, draw pictures where none are given; return (space, pictures)."""
    file = folder / "space.yaml"
    file.write_text(SPACE.format(seed=seed, data=BREAST if data else PHANTOM), encoding="utf-8")
    if data is None:
        data = draw_phantom(folder / "pictures", patients=48, slices=4, size=48, seed=seed)
    return file, data


def main() -> int:
    """Run the search to its total, or as far as it comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--space", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--storage")
    asked = parser.parse_args()
    experiment = read_experiment(asked.space)
    manifest = read_manifest(experiment.data, asked.data, folds=experiment.study.folds)
    folds = make_folds(manifest, experiment.study.folds, experiment.study.seed)
    try:
        opened = open_study(experiment, manifest, folds, folder=asked.folder, storage=asked.storage)
        with contextlib.closing(opened):
            outcome = launch(opened, trials=asked.trials, workers=asked.workers, child=CHILD)
    except AutomedError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    shown = outcome.snapshot
    print(f"{shown.done} of {shown.total} trials done; {outcome.halted or 'not halted'}")
    return 0 if shown.done >= shown.total else 1


if __name__ == "__main__":
    sys.exit(main())
