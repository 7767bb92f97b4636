"""Decode images after checking format and size in their headers.

Comments and colour profiles in a PNG are removed before decoding: they can be a thousand times
larger unpacked.
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
_PNG_DEPTH = 24  # position of the byte with the bits per sample
_PNG_COLOUR = 25  # position of the byte with the colour type
_TIFF_BITS = 0x0102
_DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "F")  # Pillow's modes of one channel with more than 8 bits

Size = tuple[int, int]  # height, width


class DecodedImage(NamedTuple):
    """A decoded image.

    Example:
        >>> from tubelet.core.untrusted.images import DecodedImage
        >>> DecodedImage(values=np.zeros((4, 6), np.uint8), mode="L", palette=None).values.shape
        (4, 6)
    """

    values: np.ndarray  # [H, W] or [H, W, C] as stored
    mode: str  # Pillow's name
    palette: list[int] | None  # r, g, b, r, g, b, ...; None for an image without a palette


def check_header(data: bytes | str | Path, where: str, size: Size | None = None) -> Header:
    """Read the header of an image, given as bytes or as a path.

    Raises InputError, with `where`, if the image has too many pixels or not the given size.

    Example:
        >>> import cv2
        >>> png = cv2.imencode(".png", np.zeros((4, 6, 3), np.uint8))[1].tobytes()
        >>> from tubelet.core.untrusted.images import check_header
        >>> check_header(png, "a file")
        Header(form='PNG', size=(4, 6))
    """
    header = read_header(data, where)
    height, width = header.size
    if height * width > MAX_PIXELS:
        raise InputError(f"{where}: {width}x{height} pixels are more than are supported")
    if size is not None and header.size != size:
        raise InputError(f"{where}: expected an image of {size[1]}x{size[0]}, got {width}x{height}")
    return header


def read_image_file(path: str | Path) -> bytes:
    """Read the bytes of an image file, without decoding. Raises InputError if it cannot be read.

    Example:
        >>> from tubelet.core.untrusted.images import read_image_file
        >>> read_image_file("missing.png")
        Traceback (most recent call last):
        ...
        tubelet.core.errors.InputError: missing.png: no such file
    """
    return read(path, largest=LARGEST_IMAGE)


def decode(data: bytes, where: str, *, rgb: bool = False) -> DecodedImage:
    """Decode an image with Pillow.

    Args:
        data: The bytes of the file.
        where: What error messages call the image.
        rgb: Convert to three channels of 8 bits, unless the image is grey with more than 8 bits.

    Raises:
        InputError: if the image is broken, too large or of an unknown format.

    Example:
        >>> import cv2
        >>> png = cv2.imencode(".png", np.zeros((4, 6, 3), np.uint8))[1].tobytes()
        >>> from tubelet.core.untrusted.images import decode
        >>> image = decode(png, "a file")
        >>> image.values.shape, image.mode
        ((4, 6, 3), 'RGB')
    """
    header = check_header(data, where)
    source = io.BytesIO(_without_comments(data) if header.form == "PNG" else data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images; the size has been checked
            with Image.open(source, formats=(header.form,)) as image:
                if image.size != header.size[::-1]:
                    raise InputError(f"{where}: not an image that can be decoded (its headers disagree on its size)")

                palette = image.getpalette() if image.mode == "P" else None
                converted = image.convert("RGB") if rgb and image.mode not in _DEEP_GREY else image
                return DecodedImage(np.array(converted), converted.mode, palette)
    except InputError:
        raise
    except Exception as error:  # broken files make decoders raise many types of errors
        raise InputError(f"{where}: not an image that can be decoded ({_reason(error)})") from None


def decode_rgb(data: bytes, where: str, *, size: Size | None = None, turned: bool = False) -> np.ndarray:
    """Decode an image with OpenCV to RGB, uint8 [H, W, 3]; for JPEG three times faster than `decode`.

    Args:
        data: The bytes of the file.
        where: What error messages call the image.
        size: The required height and width. EXIF orientation is applied only if the image has this
            size only after that; `turned` is ignored.
        turned: Apply the EXIF orientation.

    Raises:
        InputError: if the image is broken, too large, of an unknown format or not of this size.

    Example:
        >>> import cv2
        >>> png = cv2.imencode(".png", np.zeros((4, 6, 3), np.uint8))[1].tobytes()
        >>> from tubelet.core.untrusted.images import decode_rgb
        >>> decode_rgb(png, "a file", size=(4, 6)).shape
        (4, 6, 3)
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
    """Decode an image to upright RGB [H, W, 3]: uint8, or uint16 if it has 16 bits per sample.

    Raises InputError, with `where`, if the image is broken, too large, of an unknown format or has
    32 bits per sample.

    Example:
        >>> import cv2
        >>> png = cv2.imencode(".png", np.zeros((4, 6), np.uint16))[1].tobytes()
        >>> from tubelet.core.untrusted.images import decode_samples
        >>> decode_samples(png, "a file").dtype
        dtype('uint16')
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
    """Convert Pillow's current image to RGB samples [H, W, 3]. Raises the errors of `as_samples`.

    Example:
        >>> from PIL import Image
        >>> from tubelet.core.untrusted.images import picture_samples
        >>> picture_samples(Image.new("L", (6, 4))).shape
        (4, 6, 3)
    """
    converted = image if image.mode in _DEEP_GREY else image.convert("RGB")
    return as_samples(np.array(converted))


def as_samples(values: np.ndarray) -> np.ndarray:
    """Convert decoded values, RGB [H, W, 3] or deep grey [H, W], to RGB samples [H, W, 3].

    RGB is returned as it is; grey becomes uint16. Raises ValueError for floating point or 32-bit
    values, in which no value stands for white.

    Example:
        >>> from tubelet.core.untrusted.images import as_samples
        >>> as_samples(np.array([[1000]], np.int32)).tolist()
        [[[1000, 1000, 1000]]]
    """
    if values.ndim == 3:
        return values
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError("expected 8 or 16 bits a sample, got floating point")
    if values.min(initial=0) < 0 or values.max(initial=0) >= 1 << 16:
        raise ValueError("expected 8 or 16 bits a sample, got 32")
    return np.repeat(values.astype(np.uint16)[..., None], 3, axis=2)


def lies_on_its_side(path: str | Path) -> bool:
    """Return whether the EXIF orientation turns a JPEG by 90 or 270 degrees.

    Raises InputError if the file is not a JPEG that can be opened.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tubelet.core.untrusted.images import lies_on_its_side
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "frame.jpg")
        ...     Image.new("RGB", (6, 4)).save(path)
        ...     lies_on_its_side(path)
        False
    """
    with opened(path, largest=LARGEST_IMAGE) as file:
        try:
            with Image.open(file, formats=("JPEG",)) as image:
                orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
                return isinstance(orientation, int) and orientation >= 5
        except Exception as error:  # broken headers make the parser raise many types of errors
            raise InputError(f"{path}: not an image that can be decoded ({_reason(error)})") from None


def _decode_deep(data: bytes, where: str) -> np.ndarray:
    """Decode 16-bit colours. Pillow would keep the upper 8 bits only, which are nearly empty for 12-bit cameras."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{where}: not an image that can be decoded (it is broken or cut short)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _has_deep_colours(data: bytes, form: str) -> bool:
    """Whether this is a PNG or TIFF with 16 bits per sample and more than one channel."""
    if form == "PNG":
        return len(data) > _PNG_COLOUR and data[_PNG_DEPTH] == 16 and bool(data[_PNG_COLOUR] & 2)
    if form != "TIFF":
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            bits = image.tag_v2.get(_TIFF_BITS, ()) if isinstance(image, TiffImageFile) else ()
    except Exception:  # decoding will raise the right error
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
        kind = data[start + 4 : start + 8]
        if kind not in _UNREAD_CHUNKS:
            parts.append(data[start:end])
        start = end
    return b"".join(parts)


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
