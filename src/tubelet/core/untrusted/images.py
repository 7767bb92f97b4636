"""Images, decoded only after their headers were checked: format, and pixels against a limit and what is expected.

Comments and colour profiles in a PNG are left out unread: they may be compressed to a thousandth.
"""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from tubelet.core.errors import InputError
from tubelet.core.masks import MAX_PIXELS
from tubelet.core.untrusted.files import opened, read
from tubelet.core.untrusted.image_headers import Header, read_header

LARGEST_IMAGE = 1 << 30  # bytes of a file
_EXIF_ORIENTATION = 0x0112
_UNREAD_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf")  # of a PNG
_PNG_DEPTH, _PNG_COLOUR = 24, 25  # bytes of a PNG that tell its bits a sample and whether it has colours
_TIFF_BITS = 0x0102
_DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "F")  # Pillow's modes of one channel of more than 8 bits

Size = tuple[int, int]  # height, width


class DecodedImage(NamedTuple):
    """A decoded image: values [H, W] or [H, W, C] as stored, Pillow's mode, and the colours of a palette."""

    values: np.ndarray
    mode: str
    palette: list[int] | None


def check_header(data: bytes | str | Path, where: str, size: Size | None = None) -> Header:
    """The format and size of an image. Raises InputError for too many pixels, and for another size than is given."""
    header = read_header(data, where)
    height, width = header.size
    if height * width > MAX_PIXELS:
        raise InputError(f"{where}: {width}x{height} pixels are more than are supported")
    if size is not None and header.size != size:
        raise InputError(f"{where}: expected an image of {size[1]}x{size[0]}, got {width}x{height}")
    return header


def read_image_file(path: str | Path) -> bytes:
    """The bytes of an image file; raises InputError where it cannot be read."""
    return read(path, largest=LARGEST_IMAGE)


def decode(data: bytes, where: str, *, rgb: bool = False) -> DecodedImage:
    """An image as it is stored, or, with `rgb`, as three channels of 8 bits, unless it is grey with more bits.

    Raises InputError, which names `where`, where it is broken, of an unknown format or too large.
    """
    header = check_header(data, where)
    source = io.BytesIO(_without_comments(data) if header.form == "PNG" else data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images, whose size is known and fine
            with Image.open(source, formats=(header.form,)) as image:
                if image.size != header.size[::-1]:
                    raise InputError(f"{where}: not an image that can be decoded (its headers disagree on its size)")
                palette = image.getpalette() if image.mode == "P" else None
                shown = image.convert("RGB") if rgb and image.mode not in _DEEP_GREY else image
                return DecodedImage(np.array(shown), shown.mode, palette)
    except InputError:
        raise
    except Exception as error:  # broken files raise whatever the decoders stumble over
        raise InputError(f"{where}: not an image that can be decoded ({_reason(error)})") from None


def decode_rgb(data: bytes, where: str, *, size: Size | None = None, turned: bool = False) -> np.ndarray:
    """uint8 [H, W, 3] RGB, as stored or `turned` as the camera noted; three times faster for JPEG than `decode`.

    With a `size`, an image of that size as stored is given so, and one that has it only when turned is turned. Raises
    InputError, which names `where`, for any other size, and where it is broken, of an unknown format or too large.
    """
    header = check_header(data, where)
    if size is not None:
        turned = header.size != size
        if turned and header.size != size[::-1]:
            check_header(data, where, size)
    flags = cv2.IMREAD_COLOR | (0 if turned else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None or image.shape[:2] not in (header.size, header.size[::-1]):
        raise InputError(f"{where}: not an image that can be decoded (it is broken or cut short)")
    if size is not None and image.shape[:2] != size:
        check_header(data, where, size)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_samples(data: bytes, where: str) -> np.ndarray:
    """RGB [H, W, 3], upright, uint8 or, where the file has 16 bits a sample, uint16.

    Raises InputError, which names `where`, if it is broken, of an unknown format or too large, or has 32 bits a sample.
    """
    header = check_header(data, where)
    if header.form == "JPEG":
        return decode_rgb(data, where, turned=True)
    if _has_deep_colours(data, header.form):
        return _decode_deep(data, where)

    picture = decode(data, where, rgb=True)
    try:
        return as_samples(picture.values)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def picture_samples(image: Image.Image) -> np.ndarray:
    """The current picture of an open file as RGB samples [H, W, 3]; raises ValueError as `as_samples`."""
    shown = image if image.mode in _DEEP_GREY else image.convert("RGB")
    return as_samples(np.array(shown))


def as_samples(values: np.ndarray) -> np.ndarray:
    """Decoded values, RGB [H, W, 3] or grey [H, W], as RGB samples of 8 or 16 bits [H, W, 3].

    Raises ValueError for samples of 32 bits, which have no white.
    """
    if values.ndim == 3:
        return values
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError("expected 8 or 16 bits a sample, got floating point")
    if values.min(initial=0) < 0 or values.max(initial=0) >= 1 << 16:
        raise ValueError("expected 8 or 16 bits a sample, got 32")
    return np.repeat(values.astype(np.uint16)[..., None], 3, axis=2)


def lies_on_its_side(path: str | Path) -> bool:
    """Whether a camera noted that a JPEG is to be turned by a quarter before it is shown."""
    with opened(path, largest=LARGEST_IMAGE) as file:
        try:
            with Image.open(file, formats=("JPEG",)) as image:
                orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
                return isinstance(orientation, int) and orientation >= 5
        except Exception as error:  # broken headers raise whatever the parser stumbles over
            raise InputError(f"{path}: not an image that can be decoded ({_reason(error)})") from None


def _decode_deep(data: bytes, where: str) -> np.ndarray:
    """16 bits of colour: Pillow would keep the upper 8, where a camera's 12 leave almost nothing."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{where}: not an image that can be decoded (it is broken or cut short)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _has_deep_colours(data: bytes, form: str) -> bool:
    """Whether a PNG or TIFF holds 16 bits a sample of more than one channel."""
    if form == "PNG":
        return len(data) > _PNG_COLOUR and data[_PNG_DEPTH] == 16 and bool(data[_PNG_COLOUR] & 2)
    if form != "TIFF":
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            bits = image.tag_v2.get(_TIFF_BITS, ()) if isinstance(image, TiffImageFile) else ()
    except Exception:  # decoding says what is wrong with it
        return False
    return len(bits) > 1 and max(bits) == 16


def _without_comments(data: bytes) -> bytes:
    """The PNG without its texts and profiles."""
    if not any(kind in data for kind in _UNREAD_CHUNKS):
        return data
    parts = [data[:8]]
    start = 8
    while start + 8 <= len(data):
        length = struct.unpack(">I", data[start : start + 4])[0]
        end = start + 12 + length
        if data[start + 4 : start + 8] not in _UNREAD_CHUNKS:
            parts.append(data[start:end])
        start = end
    return b"".join(parts)


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
