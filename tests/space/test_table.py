from __future__ import annotations

import pytest

from automed.config import TrialConfig
from automed.settings import inspect_settings
from automed.space.table import Row, print_table, rows, summary
from automed.study.experiment import read_experiment, shipped

SETTINGS = inspect_settings(TrialConfig)
PHANTOM = read_experiment(shipped("phantom")).space


def test_every_setting_of_the_file_has_a_row_in_the_order_of_the_settings() -> None:
    names = [row.name for row in rows(PHANTOM, SETTINGS)]
    assert sorted(names) == sorted([*PHANTOM.fixed, *(knob.name for knob in PHANTOM.knobs)])
    assert names == [name for name in SETTINGS if name in names]


def test_a_row_tells_what_is_tried_and_when() -> None:
    found = {row.name: row for row in rows(PHANTOM, SETTINGS)}
    assert found["dropout.rate"] == Row(
        "dropout.rate", "0.1 to 0.5", "when dropout.placement among head, late, all",
        "share of the values set to zero", True,
    )  # fmt: skip
    assert found["optim.lr"].tried == "0.0003 to 0.01, log"
    assert (found["train.batch"].tried, found["train.batch"].searched) == ("16", False)


def test_the_summary_counts() -> None:
    searched = [row for row in rows(PHANTOM, SETTINGS) if row.searched]
    text = summary(PHANTOM)
    assert text.startswith(f"{len(searched)} knobs (1 asked only sometimes)")
    assert text.endswith(f"{len(PHANTOM.start_from)} first trials given")


def test_the_table_is_drawn_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(PHANTOM, SETTINGS, width=300)
    drawn = capsys.readouterr().out
    for row in rows(PHANTOM, SETTINGS):
        assert row.name in drawn
        assert row.about in drawn
    assert summary(PHANTOM) in drawn
