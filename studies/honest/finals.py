"""Simulated searches that end with finalists: who wins, and what is said of the winner's score.

python studies/honest/finals.py --out studies/honest
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from run import write
from world import draw_world, some_setting

from automed.results.finalists import paired
from automed.results.honest import resample
from automed.results.interval import draw_groups, network_variance, score_interval
from automed.results.weighted import Weighted

_REPLICATES = 300


def judge(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 6])
    setting = some_setting(rng, trials=int(rng.choice([20, 50, 200])))
    metric = setting.metric
    stay = float(rng.choice([0.2, 0.6, 1.0]))
    world = draw_world(setting, seed)
    found = world.found
    complete = np.flatnonzero(found.complete)
    sub = dataclasses.replace(
        found,
        trials=found.trials[complete],
        predicted=found.predicted[complete],
        probability=None if found.probability is None else found.probability[complete],
    )
    W = Weighted(sub, metric)
    cv = W.scores(np.ones((1, W.groups)))[0]
    seats = min(5, setting.trials // 10)
    order = np.argsort(-cv, kind="stable")[:seats]
    places = complete[order]
    fresh, scores = world.again(places.tolist(), stay)
    errors = paired(fresh, scores, metric, seed)
    means = scores.mean(axis=1)
    best = int(means.argmax())
    simple = rng.permutation(len(places))

    def elect(m):
        b = int(np.argmax(m))
        near = np.flatnonzero(m[b] - m <= errors[b])
        return int(near[simple[near].argmin()])

    win = elect(means)
    truth = [world.expected(int(p)) for p in places]
    t = truth[win]
    again = resample(found, metric, replicates=_REPLICATES, seed=seed)
    opt_cv = max(float(np.nanmean(again.winner_outside - again.outside)), 0)
    wi = resample(found, metric, winner=int(found.trials[places[win]]), replicates=_REPLICATES, seed=seed)
    e1 = wi.corrected(metric)
    # on fresh
    WF = Weighted(fresh, metric)
    w = draw_groups(WF.stratum, _REPLICATES, np.random.default_rng([seed, 0]))
    df = WF.scores(w)
    out = w == 0
    allfresh = np.stack([WF.score_of(np.full(len(w), i), out) for i in range(len(places))], 1)
    ok = np.isfinite(df).all(1)
    pick = np.array([elect(np.where(np.isfinite(m), m, -1)) for m in df])
    o2 = np.nanmean((allfresh[:, win] - allfresh[np.arange(len(w)), pick])[ok])
    # two stage
    dc = again.drawn
    cvout = None
    luck = float(np.nanmean(dc[:, order] - df))
    outs_w, outs_p = [], []
    for b in range(len(w)):
        top = np.argsort(-np.where(np.isfinite(dc[b]), dc[b], -9), kind="stable")[:seats]
        cand = [int(np.flatnonzero(order == p)[0]) for p in top if p in order]
        if not cand:
            cand = list(range(len(places)))
        m = np.full(len(places), -9.0)
        m[cand] = df[b, cand]
        if not np.isfinite(m).all():
            continue
        p = elect(m)
        outs_w.append(allfresh[b, win])
        outs_p.append(allfresh[b, p])
    o6 = np.nanmean(np.array(outs_w) - np.array(outs_p)) if outs_w else 0.0
    wts = draw_groups(WF.stratum, 300, np.random.default_rng([seed, 9]), fewer=1)
    drawn = WF.fold_scores(wts)[:, win]
    var = float(np.nanvar(WF.scores(wts)[:, win])) + network_variance(scores[win], drawn)
    f = means[win]
    row = {
        **dataclasses.asdict(setting),
        "stay": stay,
        "seed": seed,
        "truth": t,
        "gain": t - truth[0],
        "gain_best": truth[best] - truth[0],
        "oracle": max(truth) - truth[0],
        "naive": cv[order[win]],
        "fresh": f,
        "e1": e1.value,
        "leader": cv[order[0]],
        "leader_bbc": cv[order[0]] - opt_cv,
        "leader_truth": truth[0],
        "e2": f - max(o2, 0),
        "e5": f - opt_cv,
        "e6": f - max(o6, 0),
        "e7": f - opt_cv / 2,
        "e8": (f - opt_cv + e1.value) / 2,
        "e9": f - max(o2, 0) - opt_cv / 2,
        "mean5": means.mean(),
        "truth5": np.mean(truth),
    }
    iv = score_interval(f - opt_cv, var, WF.stratum, metric)
    row |= {
        "low": iv.low,
        "high": iv.high,
        "cov": iv.low <= t <= iv.high,
        "width": iv.high - iv.low,
        "e1cov": e1.low <= t <= e1.high,
        "e1width": e1.high - e1.low,
    }
    return row


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--runs", type=int, default=50)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--each", type=Path)
    a = p.parse_args()
    t0 = time.process_time()
    rows = [judge(s) for s in range(a.seed, a.seed + a.runs)]
    c = lambda n: np.array([r[n] for r in rows], float)
    T = c("truth")
    for n in ("naive", "fresh", "e1", "e2", "e5", "e6", "e7", "e8", "e9"):
        e = 100 * (c(n) - T)
        print(
            n,
            round(e.mean(), 2),
            "se",
            round(e.std() / len(e) ** 0.5, 2),
            "rmse",
            round((e**2).mean() ** 0.5, 2),
            [(k, round(e[c("stay") == k].mean(), 2)) for k in (0.2, 0.6, 1.0)],
        )
    e = 100 * (c("leader_bbc") - c("leader_truth"))
    print(
        "leader bbc",
        e.mean().round(2),
        "leader naive",
        (100 * (c("leader") - c("leader_truth"))).mean().round(2),
    )
    e = 100 * (c("mean5") - c("truth5"))
    print("mean5", e.mean().round(2))
    print(
        "gain",
        (100 * c("gain")).mean().round(3),
        (100 * c("gain_best")).mean().round(3),
        (100 * c("oracle")).mean().round(3),
        "se",
        (100 * c("gain")).std() / len(rows) ** 0.5,
    )
    print("cov", c("cov").mean(), c("width").mean(), "e1cov", c("e1cov").mean(), c("e1width").mean())
    print(time.process_time() - t0)
    if a.each:
        write(a.each, rows)
