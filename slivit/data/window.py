"""The grey values of a scan that a model sees."""

from slivit.utils.errors import UserError

WIDEST, NARROWEST = 1e12, 1e-12  # ends and width of a window: grey values are float32 on the way


def parse_window(text: str) -> str:
    """Check `--window`: `percentile`, `full`, or `LOW,HIGH` with LOW below HIGH.

    Raises:
        UserError: anything else.
    """
    if text in ("percentile", "full"):
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not (high - low >= NARROWEST and max(-low, high) <= WIDEST):  # NaN is neither
        raise UserError(f"--window {text}: expected percentile, full, or LOW,HIGH, numbers from "
                        f"{-WIDEST:g} to {WIDEST:g}, LOW below HIGH by at least {NARROWEST:g} "
                        "(a negative LOW needs an equals sign: --window=-1000,400)")
    return text
