import numpy as np
import pytest
import torch
from torch.nn import functional

from automed.config import Loss
from automed.tasks.classify import Classify

TASK = Classify(outputs=3)
LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3]])
TARGETS = torch.from_numpy(TASK.targets(np.array([0, 2])))


def test_cross_entropy_is_torchs() -> None:
    loss = TASK.criterion(Loss(), None)(LOGITS, TARGETS)
    torch.testing.assert_close(loss, functional.cross_entropy(LOGITS, torch.tensor([0, 2])))


def test_focal_with_gamma_zero_is_cross_entropy_and_otherwise_favours_the_hard_image() -> None:
    plain = TASK.criterion(Loss(), None)
    zero = TASK.criterion(Loss(name="focal", gamma=0.0), None)
    torch.testing.assert_close(zero(LOGITS, TARGETS), plain(LOGITS, TARGETS))
    focal = TASK.criterion(Loss(name="focal", gamma=2.0), None)
    easy, hard = (focal(LOGITS[[k]], TARGETS[[k]]) / plain(LOGITS[[k]], TARGETS[[k]]) for k in (0, 1))
    assert easy < hard < 1


def test_label_smoothing_punishes_certainty() -> None:
    smooth = TASK.criterion(Loss(name="label_smoothing", smoothing=0.2), None)
    certain = torch.tensor([[30.0, 0.0, 0.0]])
    assert smooth(certain, TARGETS[:1]) > 1


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "label_smoothing"])
def test_class_weights_shift_the_gradient(name: str) -> None:
    def gradient(weights: np.ndarray | None) -> torch.Tensor:
        logits = LOGITS.clone().requires_grad_()
        TASK.criterion(Loss(name=name), weights)(logits, TARGETS).backward()
        assert logits.grad is not None
        return logits.grad

    plain, weighted = gradient(None), gradient(np.array([0.1, 1.0, 3.0], np.float32))
    assert weighted[1].abs().sum() / weighted[0].abs().sum() > plain[1].abs().sum() / plain[0].abs().sum()
