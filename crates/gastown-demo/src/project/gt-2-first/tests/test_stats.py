import pytest

from crew import stats


def test_mean():
    assert stats.mean([1, 2, 3, 4]) == 2.5


def test_mean_of_nothing():
    with pytest.raises(ValueError):
        stats.mean([])


def test_median_of_an_odd_count():
    assert stats.median([5, 1, 3]) == 3


def test_median_of_an_even_count():
    assert stats.median([1, 2, 3, 4]) == 2.5
