"""What pages say of numbers that they have in common."""

import pytest

from automed.results.calibration import CalibrationError, Temperature
from automed.results.cells import temperature_text


@pytest.mark.parametrize(
    ("temperature", "low", "words"),
    [
        (1.4, 0.02, "the network is too sure of itself"), (0.8, 0.02, "the network is not sure enough"),
        (1.4, 0.0, "cannot be told"), (1.4, None, "cannot be told"),
    ],
)  # fmt: skip
def test_a_temperature_is_read_only_where_the_error_is_clear_of_chance(
    temperature: float, low: float | None, words: str
) -> None:
    said = temperature_text(Temperature(temperature, []), CalibrationError(0.05, low, 0.1, 0.03))
    assert said.startswith(f"Temperature {temperature:.2f}: ") and words in said


def test_why_there_is_no_temperature_is_told() -> None:
    none = Temperature(1.0, [], "no picture is misjudged")
    assert "no picture is misjudged." in temperature_text(none, CalibrationError(0.05, 0.0, 0.1, 0.03))
