"""Choose the portfolio: configurations in the order in which each adds most to those before it.

    python studies/portfolio/choose.py                              # from studies/curves, into the package
    python studies/portfolio/choose.py --without brain --out FILE   # for the race on brain: see studies/live

On a data set of its own every recording has one best configuration, and nothing adds to it. A portfolio is
for data sets to come, of which the recorded ones are examples. So each recording gives 200 regression trees
(extremely randomised, Geurts et al. 2006, each on a bootstrap sample of the configurations): each tree stands
for a data set like it, on which every configuration is off by as much as the forest is for those that it has
not seen. The worth of a list is, on average over trees and recordings, that of its best member
by the tree, and members are added greedily (Feurer et al. 2022, Auto-sklearn 2.0: the same on a table in
which every configuration was run on every data set). Candidates are the better half of each recording, but
for the networks that timm made to test itself: they cost little to record, and nobody searches them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from recorded import Config, Encoder, Recording, read_all
from sklearn.ensemble import ExtraTreesRegressor

PORTFOLIO = Path(__file__).resolve().parents[2] / "automed" / "study" / "portfolio.yaml"
CURVES = Path(__file__).resolve().parents[1] / "curves"
KEPT = (
    "model.name", "model.pretrained", "freeze.depth", "dropout.placement", "dropout.rate", "optim.name",
    "optim.lr", "optim.weight_decay", "schedule.name", "loss.name", "imbalance", "augment.policy",
)  # fmt: skip
"""What is taken to other data sets; sizes of pictures and batches and numbers of epochs hang on the set."""
_TREES = 200
_LEAST, _MOST = 8, 16
_ENOUGH = 2e-3  # of the way from the middle to the best: what the next one has to add at least


def choose(recordings: Sequence[Recording], seed: int = 0) -> list[tuple[Config, float]]:
    """The portfolio, and the worth of the list up to each member."""
    pool = [kept(one) for recording in recordings for one in _candidates(recording)]
    worlds = np.concatenate([_worlds(recording, pool, seed) for recording in recordings])
    reached, chosen, taken = np.zeros(len(worlds)), [], []
    while len(chosen) < min(_MOST, len(pool)):
        gains = np.maximum(worlds, reached[:, None]).mean(axis=0) - reached.mean()
        gains[taken] = -np.inf
        one = int(gains.argmax())
        if len(chosen) >= _LEAST and gains[one] < _ENOUGH:
            break
        reached = np.maximum(reached, worlds[:, one])
        taken.append(one)
        chosen.append((pool[one], float(reached.mean())))
    return chosen


def kept(config: Config) -> Config:
    """What of a configuration is taken along, in order: nothing that has no effect in it."""
    taken = {name: config[name] for name in KEPT if name in config}
    if taken.get("dropout.placement") == "none":
        taken.pop("dropout.rate", None)
    if taken.get("model.pretrained") is False:
        taken.pop("freeze.depth", None)
    return taken


def _candidates(recording: Recording) -> list[Config]:
    order = np.argsort(-recording.scores, kind="stable")
    better = [recording.configs[place] for place in order[: -(-len(order) // 2)]]
    return [one for one in better if not str(one["model.name"]).startswith("test_")]


def _worlds(recording: Recording, pool: Sequence[Config], seed: int) -> np.ndarray:
    """(trees, pool) the worth of every candidate on data sets like the recorded one."""
    known = [kept(one) for one in recording.configs]
    encoder = Encoder([*known, *pool])
    forest = ExtraTreesRegressor(
        _TREES, min_samples_leaf=3, max_features=0.5, bootstrap=True, oob_score=True, random_state=seed
    ).fit(encoder(known), recording.worth)
    rows, rng = encoder(pool), np.random.default_rng([seed, len(pool)])
    missed = float(np.std(recording.worth - forest.oob_prediction_))
    trees = np.stack([tree.predict(rows) for tree in forest.estimators_])
    return trees + missed * rng.standard_normal(trees.shape)


def write(chosen: Sequence[tuple[Config, float]], of: Sequence[Recording], out: Path) -> None:
    """Write the list as YAML, one line an entry."""
    from ruamel.yaml import YAML

    names = ", ".join(f"{one.name} ({len(one.configs)} configurations)" for one in of)
    yaml = YAML(typ="safe")
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = None, 1000, False
    with out.open("w", encoding="utf-8") as stream:
        stream.write("# Written by studies/portfolio/choose.py from the recordings of\n")
        stream.write(f"# {names}.\n")
        yaml.dump([{name: _short(value) for name, value in one.items()} for one, _ in chosen], stream)


def _short(value: object) -> object:
    """Two digits of a number: a portfolio is a first guess."""
    return float(f"{value:.2g}") if isinstance(value, float) else value


def main() -> None:
    """Read, choose, write, and say what each adds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--without", action="append", default=[], help="a recording to leave out")
    parser.add_argument("--out", type=Path, default=PORTFOLIO)
    asked = parser.parse_args()
    recordings = [one for one in read_all(asked.curves) if one.name not in asked.without]
    if not recordings:
        parser.error(f"there is no recording in {asked.curves}")
    chosen = choose(recordings)
    write(chosen, recordings, asked.out)
    for rank, (config, worth) in enumerate(chosen, 1):
        print(f"{rank:>2}  {worth:.3f}  " + ", ".join(f"{name} {value}" for name, value in config.items()))
    print(f"{asked.out}: {len(chosen)} configurations")


if __name__ == "__main__":
    main()
