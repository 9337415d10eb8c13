"""Numbers on the command line that have bounds: what is out of them ends with usage, reason and exit code 2."""

import argparse
import math


def count(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text) if text.strip().lstrip("+-").isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return number


def temperature(text: str) -> float:
    """A number from 0 on that is finite."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 on: 0 gives the likeliest answer")
    return number
