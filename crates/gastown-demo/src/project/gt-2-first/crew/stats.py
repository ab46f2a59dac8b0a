"""What a list of numbers looks like."""


def mean(numbers):
    """The arithmetic mean; ValueError of nothing."""
    if not numbers:
        raise ValueError("the mean of nothing")
    return sum(numbers) / len(numbers)


def median(numbers):
    """The number in the middle; ValueError of nothing."""
    if not numbers:
        raise ValueError("the median of nothing")
    return sorted(numbers)[len(numbers) // 2]
