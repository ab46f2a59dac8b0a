"""What a list of numbers looks like."""


def mean(numbers):
    """The arithmetic mean; ValueError of nothing."""
    if not numbers:
        raise ValueError("the mean of nothing")
    return sum(numbers) / len(numbers)
