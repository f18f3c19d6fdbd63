import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from automed.data.grouping import join


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_the_components_of_equal_keys_and_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    keys = rng.integers(0, 2 * count, (2, count))
    pairs = rng.integers(0, count, (int(rng.integers(0, count)), 2))
    links = [(a, b) for column in keys for a in range(count) for b in range(a) if column[a] == column[b]]
    ends = np.array([*links, *pairs.tolist()], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (count, count))
    _, expected = connected_components(graph, directed=False)
    found = join(*keys.tolist(), pairs=map(tuple, pairs.tolist()))
    assert len(set(zip(found.tolist(), expected.tolist(), strict=True))) == len(set(expected.tolist()))
    _, first = np.unique(found, return_index=True)
    assert np.array_equal(np.sort(first), first), "numbered in order of appearance"
    assert found.max() + 1 == len(set(expected.tolist()))
