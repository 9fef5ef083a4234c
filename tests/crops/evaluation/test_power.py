"""What a number of queries can tell, against the paired test itself on drawn differences."""

import numpy as np
import pytest

from crops.evaluation import metrics, power


@pytest.mark.parametrize("queries", [50, 200, 785])
def test_the_paired_test_sees_the_smallest_difference_four_times_in_five(queries):
    """400 draws of per-query differences with the spread and a mean of the smallest difference."""
    rng = np.random.default_rng(queries)
    mean = power.smallest_difference(queries)
    seen = 0
    for n in range(400):
        ours = rng.normal(mean, power.SPREAD, queries)
        seen += metrics.compare(ours, np.zeros(queries), draws=200, seed=n)["low"] > 0
    assert 0.72 < seen / 400 < 0.88  # 0.8, four standard errors either way


def test_needed_queries_is_the_inverse():
    for difference in (0.01, 0.03, 0.1):
        needed = power.needed_queries(difference)
        assert power.smallest_difference(needed) <= difference < power.smallest_difference(needed - 1)
    assert power.smallest_difference(0) is None
    with pytest.raises(ValueError, match="expected more than 0"):
        power.needed_queries(0.0)
