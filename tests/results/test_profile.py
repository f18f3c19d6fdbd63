import io

import pytest
from rich.console import Console

from automed.config import from_flat, to_flat
from automed.result import Profile
from automed.results.profile import print_profile, profile_lines
from automed.study.profile import Profiled
from automed.train.clock import PARTS

CONFIG = to_flat(from_flat({"model.name": "resnet18", "optim.lr": 1e-3}))
PLAN = {"device": "cpu", "precision": "float32", "threads": 1, "features": "kept: what 6 of 8 stages give"}


def profile(**spent: float) -> Profile:
    """Ten seconds; a tenth of the machine's rate in the six of forward and backward."""
    time = {**dict.fromkeys(PARTS, 0.0), "forward": 2.0, "backward": 4.0, **spent}
    return Profile(
        seconds=10.0, time=time, epochs=2, learnt=300, judged=100, forward=2e10, backward=4e10,
        evaluation=1e10, rate=1e11, peak_memory=2**30, plan=PLAN,
    )  # fmt: skip


def drawn(one: Profiled, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    print_profile(one, 3, Console(file=stream, width=100, highlight=False))
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_parts_and_idle_are_all_of_the_time() -> None:
    parts = profile(evaluation=1.5).parts
    assert list(parts) == [*PARTS, "idle"]
    assert parts["idle"] == pytest.approx(2.5)
    assert sum(parts.values()) == pytest.approx(10.0)


def test_the_limit_is_all_operations_over_the_rate() -> None:
    assert profile().limit == pytest.approx(0.7)
    said = "\n".join(profile_lines(profile()))
    assert "10.0 GFLOP/s of 100.0 measured (10 %)" in said
    assert "would take 0.7 s; it took 10 s" in said
    assert "forward and backward: 60 % of the wall time" in said
    assert "67 MFLOP forward, 133 backward" in said
    assert "kept: what 6 of 8 stages give" in said


def test_what_was_made_for_all_trials_is_not_held_against_this_one() -> None:
    assert "it took 6.5 s beside the prefix" in "\n".join(profile_lines(profile(prefix=3.5)))


@pytest.mark.parametrize(
    ("spent", "words"),
    [
        ({"data": 3.0, "evaluation": 0.5}, "data, 30 %: lighter augmentation"),
        ({"storage": 2.5, "step": 1.0}, "storage, 25 %: trials are very short"),
        ({"evaluation": 0.5, "data": 0.5}, "idle, 30 %"),
    ],
)
def test_the_largest_other_part_gets_the_advice(spent: dict[str, float], words: str) -> None:
    lines = list(profile_lines(profile(**spent)))
    assert [line for line in lines if words in line] == lines[-1:]


def test_where_nothing_else_is_large_there_is_no_advice() -> None:
    even = dict.fromkeys(("data", "step", "evaluation", "checkpoint"), 0.9)
    assert list(profile_lines(profile(**even)))[-1] == PLAN["features"]


@pytest.mark.parametrize(("encoding", "block"), [("utf-8", "█"), ("ascii", "#")])
def test_bars_are_as_long_as_the_shares(encoding: str, block: str) -> None:
    bars = {
        line.split()[0]: line.count(block)
        for line in drawn(Profiled(0, CONFIG, profile()), encoding).splitlines()
        if " s " in line and line.startswith("  ")
    }
    assert (bars["forward"], bars["backward"], bars["data"], bars["idle"]) == (8, 16, 0, 16)


def test_a_configuration_that_cannot_be_trained_says_why() -> None:
    text = drawn(Profiled(1, CONFIG, reason="diverged: the training loss became nan"))
    assert "2 of 3: resnet18" in text
    assert "not measured: diverged" in text
