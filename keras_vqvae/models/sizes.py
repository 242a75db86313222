"""Sizes of the parts in which work is done: few different ones, where each is compiled for itself.

Not for graphs of TensorFlow without XLA, which do for any size.
"""


def rounded_up(size: int) -> int:
    """Returns the least of the sizes 1 to 8, 10, 12, 14, 16, 20, 24, ... that is at least `size`.

    There are four of them an octave, so at most a quarter is added.
    """
    step = 1 << max(0, (size - 1).bit_length() - 3)
    return -(-size // step) * step


def part_of(total: int, most: int, few_sizes: bool) -> int:
    """Returns the size, at most `most`, of equal parts of which the fewest make up `total`.

    Args:
        total: what is to be done.
        most: of which at most so many at a time.
        few_sizes: whether the size must be one of few, since another is compiled anew: then parts
            may be more than `total` together.
    """
    if not few_sizes:
        return -(-total // -(-total // most))
    if total <= most:
        return min(rounded_up(total), most)
    sizes = {max(1, most * eighths // 8) for eighths in range(4, 9)}
    return min(sizes, key=lambda size: (-(-total // size) * size, -size))


def powers_of_two(total: int) -> list[int]:
    """Returns different powers of two, the greatest first, whose sum is `total`."""
    return [1 << bit for bit in reversed(range(total.bit_length())) if total >> bit & 1]
