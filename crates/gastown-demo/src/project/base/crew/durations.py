"""Durations as people write them: 45s, 15m, 1h30m."""

import re

UNITS = {"h": 3600, "m": 60, "s": 1}


def parse(text):
    """The seconds of a duration; ValueError when it is none."""
    if not re.fullmatch(r"(\d+[hms])+", text):
        raise ValueError(f"not a duration: {text!r}")
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", text))
