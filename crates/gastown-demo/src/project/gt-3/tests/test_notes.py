from crew import notes


def test_slug():
    assert notes.slug("Fog, and no wind!") == "fog-and-no-wind"
    assert notes.slug("") == ""
