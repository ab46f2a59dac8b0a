"""Who is on watch."""


def watches(crew, count):
    """The next `count` watches, in turn; ValueError without a crew."""
    if not crew:
        raise ValueError("nobody to be on watch")
    return [crew[i % len(crew)] for i in range(count)]
