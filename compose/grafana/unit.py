"""Numbers with their units, as Grafana writes them."""

from __future__ import annotations

import math

__all__ = ["written"]

_TIMES = (
    (1e-6, 1e-9, "ns"),
    (1e-3, 1e-6, "µs"),
    (1.0, 1e-3, "ms"),
    (60.0, 1.0, "s"),
    (3600.0, 60.0, "min"),
    (86400.0, 3600.0, "hour"),
    (math.inf, 86400.0, "day"),
)
_THOUSANDS = ("", " K", " Mil", " Bil")
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a value as Grafana shows it; ``unit`` is Grafana's name for it."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "-∞"}.get(value, "none")
    match unit:
        case "percentunit":
            return f"{_digits(value * 100, decimals)}%"
        case "s":
            return _seconds(value, decimals)
        case "bytes":
            power = 0 if abs(value) < 1 else min(int(math.log(abs(value), 1024)), len(_BYTES) - 1)
            return f"{_digits(value / 1024**power, decimals)} {_BYTES[power]}"
        case _ if unit.startswith("suffix:"):
            return f"{_digits(value, decimals)} {unit.removeprefix('suffix:')}"
        case _:
            power = 0
            while abs(value) >= 1000 and power < len(_THOUSANDS) - 1:
                value, power = value / 1000, power + 1
            return _digits(value, decimals) + _THOUSANDS[power]


def _seconds(value: float, decimals: int | None) -> str:
    if value == 0:
        return "0 s"
    for bound, size, name in _TIMES:
        if abs(value) < bound:
            number = _digits(value / size, decimals)
            many = "s" if size >= 3600 and number != "1" else ""
            return f"{number} {name}{many}"
    raise AssertionError("the last bound is infinite")


def _digits(value: float, decimals: int | None) -> str:
    """Write three digits that mean something, or so many after the point."""
    if decimals is None:
        size = 0 if value == 0 else math.floor(math.log10(abs(value)))
        decimals = max(0, min(2 - size, 4))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
