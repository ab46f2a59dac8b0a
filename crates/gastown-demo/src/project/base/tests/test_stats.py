import pytest

from crew import stats


def test_mean():
    assert stats.mean([1, 2, 3, 4]) == 2.5


def test_mean_of_nothing():
    with pytest.raises(ValueError):
        stats.mean([])
