import pytest

from crew import roster


def test_watches_go_round():
    assert roster.watches(["nux", "slit"], 3) == ["nux", "slit", "nux"]


def test_watches_need_a_crew():
    with pytest.raises(ValueError):
        roster.watches([], 1)
