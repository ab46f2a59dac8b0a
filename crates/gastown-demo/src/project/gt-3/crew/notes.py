"""Notes of the log."""

import re


def slug(title):
    """A title as it stands in a file's name."""
    return "-".join(re.findall(r"[a-z0-9]+", title.lower()))
