import numpy as np
import pytest

from automed.models.weights import weight_source
from automed.tasks.classify import Classify
from automed.train.feed import Material

SIZE, CLASSES = 32, 3


@pytest.fixture(scope="session")
def material() -> Material:
    """Three kinds of stripes under noise, 60 pictures (60, 32, 32, 1): easy, but not at once."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % CLASSES
    y, x = np.mgrid[:SIZE, :SIZE]
    waves = [np.sin(x / 2), np.sin(y / 2), np.sin((x + y) / 3)]
    images = np.stack([128 + 60 * waves[k] + rng.normal(0, 40, (SIZE, SIZE)) for k in labels])
    return Material(
        images=images.clip(0, 255).astype(np.uint8)[..., None],
        labels=labels,
        task=Classify(outputs=CLASSES),
        weights=weight_source(None),
        metric="macro_f1",
        searched=np.arange(60),
        content="stripes",
    )
