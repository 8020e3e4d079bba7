"""Decoding, shrinking and encoding pictures."""

import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image, ImageCms

from actors.error import ActorArgumentError
from actors.picture import Size, decode, encode, parse_size, shrink

LIMIT = 1_000_000


def encoded(picture, form="JPEG", **options):
    """Return the bytes of a picture."""
    buffer = BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def png_head(width, height):
    """Return a PNG that claims a size and has hardly any bytes."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_the_orientation_is_applied_and_the_metadata_is_gone():
    """A phone's sideways picture comes out upright, without its place and camera."""
    picture = Image.new("RGB", (40, 20), "red")
    picture.paste("blue", (0, 0, 20, 20))
    exif = picture.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    exif[0x010F] = "Camera"
    exif.get_ifd(0x8825)[1] = "N"
    content = encoded(picture, exif=exif, comment=b"secret", quality=95)
    upright, form = decode(content, max_pixels=LIMIT)
    assert (upright.size, form) == ((20, 40), "jpeg")
    red, _, blue = upright.getpixel((10, 5))
    assert blue > red
    for out in ("jpeg", "png", "webp"):
        again = encode(upright, out)
        assert b"Camera" not in again
        assert b"secret" not in again
        with Image.open(BytesIO(again)) as opened:
            assert not dict(opened.getexif())
            assert "icc_profile" not in opened.info


def test_a_profile_is_applied_and_dropped():
    """Colours are converted to sRGB, so that dropping the profile does not change them."""
    lab_like = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encoded(Image.new("RGB", (4, 4), (200, 100, 50)), "PNG", icc_profile=lab_like)
    picture, _ = decode(content, max_pixels=LIMIT)
    assert "icc_profile" not in picture.info
    assert all(
        abs(ours - theirs) <= 2
        for ours, theirs in zip(picture.getpixel((1, 1)), (200, 100, 50), strict=True)
    )


@pytest.mark.parametrize("size", [(1001, 1000), (20_000, 20_000), (60_000, 60_000)])
def test_a_decompression_bomb_is_refused_by_its_head(size):
    """Few bytes that claim many pixels are refused, before and beyond Pillow's own limits."""
    with pytest.raises(ActorArgumentError, match=r"pixels|too large"):
        decode(png_head(*size), max_pixels=LIMIT)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        encoded(Image.new("RGB", (50, 50), "red"))[:300],
        encoded(Image.effect_noise((50, 50), 50), "PNG")[:300],
        encoded(Image.new("RGB", (5, 5)), "GIF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    ],
)
def test_what_is_no_whole_picture_of_a_known_format_is_refused(content):
    """Broken, cut, foreign and dangerous formats end with a reason."""
    with pytest.raises(ActorArgumentError, match="cannot be decoded"):
        decode(content, max_pixels=LIMIT)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("out", ["jpeg", "png", "webp"])
def test_every_mode_can_be_written_in_every_format(mode, out):
    """Palettes, grey, 16 bits and transparency all come through."""
    picture, _ = decode(encoded(Image.new(mode, (30, 30)), "PNG"), max_pixels=LIMIT)
    again, form = decode(encode(shrink(picture, Size(10, 10)), out), max_pixels=LIMIT)
    assert (again.size, form) == ((10, 10), out)


def test_sixteen_bits_keep_their_brightness():
    """The upper eight of sixteen bits are kept; they are not cut off at white."""
    content = encoded(Image.new("I;16", (4, 4), 128 * 256), "PNG")
    picture, _ = decode(content, max_pixels=LIMIT)
    assert abs(picture.convert("L").getpixel((1, 1)) - 128) <= 1


def test_cmyk_becomes_rgb():
    """A picture made for print can be shown."""
    picture, _ = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0))), max_pixels=LIMIT)
    red, green, _ = picture.getpixel((4, 4))
    assert picture.mode == "RGB"
    assert red > 200
    assert green < 60


def test_transparency_becomes_white_in_jpeg():
    """What is see-through is not black."""
    made = encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "jpeg")
    picture, _ = decode(made, max_pixels=LIMIT)
    assert min(picture.getpixel((4, 4))) > 250


def test_proportions_are_kept_and_nothing_is_enlarged():
    """A box is a limit in both directions."""
    picture = Image.new("RGB", (400, 200))
    assert shrink(picture, Size(100, 100)).size == (100, 50)
    assert shrink(picture, Size(9000, 9000)).size == (400, 200)


@pytest.mark.parametrize(
    "text", ["", "640", "640x", "0x10", "10x-1", "640X480", "123456x1", "1x1\n"]
)
def test_a_size_is_two_numbers(text):
    """Anything but WIDTHxHEIGHT is refused."""
    with pytest.raises(ActorArgumentError, match="size"):
        parse_size(text)
