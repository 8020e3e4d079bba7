"""`image.resize` in the storage."""

import hashlib
from io import BytesIO

import pytest
from PIL import Image

from actors.error import ActorArgumentError
from actors.image import resize
from actors.storage import storage


def picture(size=(800, 400), form="JPEG", orientation=None):
    """Return the bytes of a picture, turned by its EXIF where asked for."""
    made = Image.linear_gradient("L").resize(size).convert("RGB")
    exif = made.getexif()
    if orientation:
        exif[0x0112] = orientation
        exif[0x010F] = "Camera"
    buffer = BytesIO()
    made.save(buffer, form, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(("form", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_one_job_makes_all_sizes(put, form, suffix):
    """Each size is there under its own name, in the picture's own format, as the result says."""
    url = put(f"uploads/cat.{suffix}", picture(form=form))
    result = resize.fn(image=url, sizes=["200x200", "50x50", "2000x2000"], folder="thumbs")
    sizes = [(each["width"], each["height"]) for each in result["images"]]
    assert sizes == [(200, 100), (50, 25), (800, 400)]
    assert result["images"][0]["url"].endswith(f"/thumbs/cat-200x200.{suffix}")
    for each in result["images"]:
        content = storage().read(each["url"], limit=10_000_000)
        assert each["sha256"] == hashlib.sha256(content).hexdigest()
        assert each["bytes"] == len(content)
        with Image.open(BytesIO(content)) as opened:
            assert opened.format == form
            assert opened.size == (each["width"], each["height"])


def test_a_turned_picture_is_upright_and_says_nothing_about_its_camera(put):
    """The box is applied to the upright picture, and the EXIF is gone."""
    url = put("uploads/phone.jpg", picture(orientation=6))
    (made,) = resize.fn(image=url, sizes=["100x100"])["images"]
    content = storage().read(made["url"], limit=1_000_000)
    assert (made["width"], made["height"]) == (50, 100)
    assert b"Camera" not in content
    assert b"Exif" not in content


def test_a_second_run_writes_the_same_bytes_to_the_same_names(put):
    """A repeated delivery changes nothing."""
    url = put("uploads/cat.png", picture(form="PNG"))
    first = resize.fn(image=url, sizes=["60x60", "30x30"], format="webp")
    assert resize.fn(image=url, sizes=["60x60", "30x30"], format="webp") == first
    assert len(list(storage().files("images"))) == 2


def test_a_picture_beyond_the_limits_is_dead_and_writes_nothing(put, configure):
    """Pixels and bytes each have a limit."""
    url = put("uploads/cat.jpg", picture())
    configure(IMAGE_MAX_PIXELS=800 * 400 - 1)
    with pytest.raises(ActorArgumentError, match="LEVERET_IMAGE_MAX_PIXELS"):
        resize.fn(image=url, sizes=["60x60"])
    configure(IMAGE_MAX_PIXELS=800 * 400, IMAGE_MAX_BYTES=100)
    with pytest.raises(ActorArgumentError, match="100 are allowed"):
        resize.fn(image=url, sizes=["60x60"])
    assert list(storage().files("images")) == []


@pytest.mark.parametrize(
    "job",
    [
        {"image": "uploads/nothing.jpg"},
        {"image": "uploads/text.jpg"},
        {"image": "../cat.jpg"},
        {"folder": "../out"},
        {"sizes": ["60"]},
    ],
)
def test_what_can_never_work_is_dead(put, job, tmp_path):
    """Missing files, other files, and paths outside are refused."""
    put("uploads/cat.jpg", picture())
    put("uploads/text.jpg", b"no picture")
    with pytest.raises(ActorArgumentError):
        resize.fn(**{"image": "uploads/cat.jpg", "sizes": ["60x60"], **job})
    assert not (tmp_path / "out").exists()
