"""How much each knob matters for being among the best, by Optuna's conditional PED-ANOVA.

Watanabe, Bansal & Hutter 2023 ("PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces", IJCAI), in the form for conditional spaces: a knob is judged among the trials that were asked for
it, and weighed with how many of the best those are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from automed.settings import Scalar
from automed.space.sample import SearchSpace

_BEST = 0.25  # the share of trials that counts as the best
_FEWEST = 20


def importance(
    space: SearchSpace, params: Sequence[Mapping[str, Scalar]], values: Sequence[float]
) -> dict[str, float]:
    """The share of every searched knob, the largest first; they add up to 1. Empty for fewer than 20 trials.

    Args:
        space: what was searched.
        params: of every trial, what it was asked.
        values: of every trial, its score, or what is known of it if it was stopped early.
    """
    import optuna

    if len(values) < _FEWEST:
        return {}
    distributions = {knob.name: knob.distribution() for knob in space.searched}
    quiet = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    optuna.logging.set_verbosity(quiet)
    for asked, value in zip(params, values, strict=True):
        known = {name: given for name, given in asked.items() if name in distributions}
        study.add_trial(
            optuna.trial.create_trial(
                params=known, distributions={name: distributions[name] for name in known}, value=value
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of knobs that hardly any trial was asked for
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_BEST)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in sorted(found.items(), key=lambda one: -one[1])}
