"""Decoding, shrinking and encoding pictures with Pillow. No storage here.

What comes out is upright (the EXIF orientation is applied), in sRGB, and carries no metadata: no
EXIF with its place and camera, no profile, no comment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from actors.error import ActorArgumentError
from actors.library import library

if TYPE_CHECKING:
    from PIL import Image, ImageCms, ImageOps
else:
    Image, ImageCms, ImageOps = map(library, ("PIL.Image", "PIL.ImageCms", "PIL.ImageOps"))

__all__ = ["SUFFIXES", "Format", "Size", "decode", "encode", "parse_size", "shrink"]

Format = Literal["jpeg", "png", "webp"]

SUFFIXES: dict[Format, str] = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}
_READ = ("JPEG", "PNG", "WEBP")
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
_QUALITY = 85


@dataclass(frozen=True)
class Size:
    """A box in pixels that a picture is fitted into."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def parse_size(text: str) -> Size:
    """Return the size that ``640x480`` says."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ActorArgumentError(f"{text[:50]!r} is no size: write it as 640x480")
    return Size(int(match[1]), int(match[2]))


def decode(content: bytes, *, max_pixels: int) -> tuple[Image.Image, Format]:
    """Return the picture, upright and in RGB, RGBA or grey, and its format.

    Raises `ActorArgumentError` when it is none of the known formats, is broken, or has more than
    ``max_pixels``; the size is taken from its head, before anything is unpacked.
    """
    try:
        with Image.open(BytesIO(content), formats=_READ) as opened:
            width, height = opened.size
            if width * height > max_pixels:
                raise ActorArgumentError(
                    f"the picture has {width} x {height} pixels, and LEVERET_IMAGE_MAX_PIXELS "
                    f"allows {max_pixels}"
                )
            form = _format(opened.format)
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            return _plain(upright), form
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ActorArgumentError(f"the picture is too large to decode: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ActorArgumentError(
            f"the picture cannot be decoded as {', '.join(_READ)}: {error}"
        ) from error


def shrink(picture: Image.Image, box: Size) -> Image.Image:
    """Return a copy that fits into ``box`` with its proportions kept; it is never enlarged."""
    copy = picture.copy()
    copy.thumbnail((box.width, box.height), Image.Resampling.LANCZOS)
    return copy


def encode(picture: Image.Image, form: Format) -> bytes:
    """Return the bytes of ``picture``; for JPEG, what is transparent becomes white."""
    if form == "jpeg" and picture.mode == "RGBA":
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))
        picture = white
    buffer = BytesIO()
    match form:
        case "jpeg":
            picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True, progressive=True)
        case "png":
            picture.save(buffer, "PNG", optimize=True)
        case "webp":
            picture.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def _format(name: str | None) -> Format:
    match name:
        case "JPEG":
            return "jpeg"
        case "PNG":
            return "png"
        case _:
            return "webp"


def _plain(picture: Image.Image) -> Image.Image:
    """Return ``picture`` as grey, RGB or RGBA in sRGB, without anything beside its pixels."""
    profile = picture.info.get("icc_profile")
    transparent = picture.has_transparency_data
    if picture.mode.startswith("I"):  # 16 bits for each pixel: keep the upper 8
        picture = picture.convert("I").point(lambda value: value / 256).convert("L")
    elif picture.mode not in {"L", "RGB", "RGBA", "CMYK"}:
        picture = picture.convert("RGBA" if transparent else "RGB")
    elif transparent and picture.mode != "RGBA":
        picture = picture.convert("RGBA")
    if profile:
        picture = _to_srgb(picture, profile)
    if picture.mode == "CMYK":
        picture = picture.convert("RGB")
    picture = picture.copy()
    picture.info.clear()
    return picture


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Return ``picture`` in sRGB; unchanged where its profile is broken or for another mode."""
    mode = "RGB" if picture.mode == "CMYK" else picture.mode
    try:
        converted = ImageCms.profileToProfile(
            picture,
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB" if mode == "L" else mode,
        )
    except (ImageCms.PyCMSError, OSError):
        return picture
    return converted if converted is not None else picture
