"""Pixels as a PNG that is small enough for a page of the documentation."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["png"]

#: The square of a distance between colours that nobody sees.
_ALIKE = 100


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Return a picture as PNG, in 256 colours."""
    output = io.BytesIO()
    _small(Image.fromarray(pixels).convert("RGB")).save(output, "PNG", optimize=True)
    return output.getvalue()


def _small(pixels: Image.Image) -> Image.Image:
    """Return the picture in 256 colours: the most frequent that differ, so that none is lost."""
    flat = np.asarray(pixels).reshape(-1, 3)
    codes, where, counts = np.unique(
        flat.astype(np.int32) @ (65536, 256, 1), return_inverse=True, return_counts=True
    )
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
    kept = np.empty((0, 3), dtype=np.int64)
    for color in colors[np.argsort(-counts)]:
        if len(kept) < 256 and not (((kept - color) ** 2).sum(axis=1) < _ALIKE).any():
            kept = np.vstack([kept, color])
    nearest = [int(((kept - color) ** 2).sum(axis=1).argmin()) for color in colors]
    small = Image.fromarray(
        np.array(nearest, dtype=np.uint8)[where].reshape(pixels.height, pixels.width), "P"
    )
    small.putpalette(kept.astype(np.uint8).tobytes())
    return small
