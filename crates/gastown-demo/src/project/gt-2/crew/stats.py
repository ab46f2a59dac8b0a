"""What a list of numbers looks like."""


def mean(numbers):
    """The arithmetic mean; ValueError of nothing."""
    if not numbers:
        raise ValueError("the mean of nothing")
    return sum(numbers) / len(numbers)


def median(numbers):
    """The number in the middle, or the mean of the two there; ValueError of nothing."""
    if not numbers:
        raise ValueError("the median of nothing")
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return mean(ordered[middle - 1 : middle + 1])
