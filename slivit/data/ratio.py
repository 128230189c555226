"""`--split_ratio`: the shares of train, val and test in a table without splits."""

from slivit.utils.errors import UserError

SPLIT_RATIO = "0.7,0.15,0.15"


def parse_ratio(text: str) -> tuple[float, float, float]:
    """Return the three fractions of `--split_ratio`, such as `0.7,0.15,0.15`.

    Raises:
        UserError: not three numbers from 0 to 1 that add up to 1, or no training share.
    """
    try:
        parts = tuple(float(part) for part in text.split(","))
    except ValueError:
        parts = ()
    good = len(parts) == 3 and all(0 <= part <= 1 for part in parts)  # NaN is not
    if not good or abs(sum(parts) - 1) > 1e-6 or parts[0] == 0:
        raise UserError(f"--split_ratio {text}: expected three fractions for train, val and test "
                        "that add up to 1, such as 0.7,0.15,0.15")
    return parts
