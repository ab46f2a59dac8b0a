import pytest

from crew import durations


@pytest.mark.parametrize("text, seconds", [("45s", 45), ("15m", 900), ("1h30m", 5400), ("0s", 0)])
def test_parse(text, seconds):
    assert durations.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "1d", "-1s", "1h ago"])
def test_parse_refuses_what_is_no_duration(text):
    with pytest.raises(ValueError):
        durations.parse(text)


@pytest.mark.parametrize("text", ["45s", "15m", "1h30m", "2h1s", "0s"])
def test_show_is_the_way_back(text):
    assert durations.show(durations.parse(text)) == text
