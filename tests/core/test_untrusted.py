"""The front door: whatever bytes come from outside, reading ends in values or in one clear error, at once."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import struct
import subprocess
import sys
import threading
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tubelet.core.errors import FormatError, InputError, WeightsError
from tubelet.core.untrusted import archives, databases, documents, files, images, tensors
from tubelet.core.untrusted.image_headers import read_header

# files


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for name, message in (
        ("", "found a folder"),
        ("pipe", "a pipe that nobody writes to"),
        ("endless", "found a device"),
        ("loop", "cannot be read"),
        ("gone", "no such file"),
        ("a" * 5000, "cannot be read"),
        ("a\0b", "not a file name"),
        ("\ud800", "not a file name"),
    ):
        for read in (files.read, files.mapped, files.read_text, documents.read_json):
            with pytest.raises(InputError, match=message):
                read(tmp_path / name)


def test_a_pipe_with_a_slow_writer_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"abc" * 100_000))
    writer.start()
    assert files.read(tmp_path / "pipe") == b"abc" * 100_000
    writer.join()


def test_more_bytes_than_are_expected_are_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(InputError, match="at most"):
        files.read(tmp_path / "sparse")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="at most 4 bytes, found 5"):
        files.read(tmp_path / "text", largest=4)


def test_text_is_utf_8_or_refused(tmp_path: Path) -> None:
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfhello \xc3\xa9")
    assert files.read_text(tmp_path / "marked") == "hello é"
    with pytest.raises(FormatError, match="found the byte 0xe9"):
        files.decode_text(b"caf\xe9", "here")
    with pytest.raises(FormatError, match="here: expected text in UTF-8, found UTF-16"):
        files.decode_text("hello".encode("utf-16"), "here")


# documents


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"1e999",
        b"9" * 5000,
        b'"\\ud800"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"[" * 3000 + b"]" * 3000,
        b"[" * 200 + b"]" * 200,
        '{"a": 1}'.encode("utf-16"),
        b"// words\n{}",
        b"{} {}",
    ],
)
def test_json_is_strict(text: bytes) -> None:
    with pytest.raises(FormatError, match=r"^here: "):
        documents.decode_json(text, "here")


def test_json_may_begin_with_a_mark_and_hold_whole_surrogate_pairs() -> None:
    assert documents.decode_json(b'\xef\xbb\xbf["\\ud83d\\ude00"]', "here") == ["\U0001f600"]


def test_nan_is_spelt_out_or_taken_where_figures_are_read() -> None:
    text = b'{"score": NaN, "counts": [Infinity, 1]}'
    assert json.loads(documents.spell_out_nan(text, "here")) == {"score": "NaN", "counts": ["Infinity", 1]}
    assert np.isnan(documents.decode_figures(text, "here")["score"])
    for broken in (b'[NaN, "\\ud800"]', b"[NaN, 1e999]", b"[NaN, " + b"9" * 5000 + b"]", b"[NaN", b"[NaN, '\xff']"):
        with pytest.raises(FormatError, match="expected JSON"):
            documents.spell_out_nan(broken, "here")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_document_types_are_refused_in_every_encoding(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>'
    with pytest.raises(FormatError, match="document types and entities"):
        documents.parse_xml(text.encode(encoding), "here")
    plain = f'<?xml version="1.0" encoding="{encoding}"?><a>é</a>'
    assert documents.parse_xml(plain.encode(encoding), "here").text == "é"


@pytest.mark.parametrize(
    "text", [b"", b"<a>", b"<a><b></a>", b"<a>" * 1000, b"<a>\0</a>", b'<?xml version="1.0" encoding="idna"?><a/>']
)
def test_broken_xml_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError, match=r"^here: "):
        documents.parse_xml(text, "here")


# archives


def zipped(path: Path, **members: bytes) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path.read_bytes()


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "whole.zip", a=bytes(range(256)) * 20)
    lying_end = b"PK\5\6\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff\x7f\0\0"
    for data in (lying_end, whole[: len(whole) // 2], b"PK\3\4junk", b""):
        (tmp_path / "broken.zip").write_bytes(data)
        with pytest.raises(InputError, match=r"broken\.zip: not a zip archive"):
            archives.open_archive(tmp_path / "broken.zip")


def test_names_of_an_archive_that_are_no_files_are_left_out(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", **{"dogs/": b"", "dogs/a": b"a", "../b": b"b", "/c": b"c"})
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive, archive.open(zipfile.ZipInfo(""), "w") as nameless:
        nameless.write(b"d")
    with archives.open_archive(tmp_path / "a.zip") as archive:
        assert archives.member_names(archive) == ("dogs/a",)


def test_a_broken_stream_in_an_archive_is_refused(tmp_path: Path) -> None:
    whole = bytearray(zipped(tmp_path / "a.zip", name=bytes(range(256)) * 20))
    start = whole.index(b"name") + 4
    whole[start : start + 10] = b"\xff" * 10
    (tmp_path / "a.zip").write_bytes(whole)
    with archives.open_archive(tmp_path / "a.zip") as archive:
        with pytest.raises(InputError, match="here: cannot be read from the archive"):
            archives.read_member(archive, "name", "here")
        with pytest.raises(InputError, match="no such file in the archive"):
            archives.read_member(archive, "other", "here")


def test_a_member_that_grows_a_thousandfold_is_refused(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", large=bytes(archives.ALWAYS_FINE + 1), small=bytes(1 << 20))
    with archives.open_archive(tmp_path / "a.zip") as archive:
        assert len(archives.read_member(archive, "small", "here")) == 1 << 20
        with pytest.raises(InputError, match="shrinks by at most"):
            archives.read_member(archive, "large", "here")


def test_names_that_lead_out_of_an_archive_are_left_out(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", **{"../up": b"", "/etc/passwd": b"", "a/../../b": b"", "inside/a": b""})
    with archives.open_archive(tmp_path / "a.zip") as archive:
        assert archives.member_names(archive) == ("inside/a",)


# images


def encoded(form: str, size: tuple[int, int] = (7, 5), mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size[::-1]).save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "comment": b"x" * 60000}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0"}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"big_tiff": True}),
        ("GIF", {}),
    ],
)
def test_headers_tell_format_and_size(form: str, options: dict[str, object], tmp_path: Path) -> None:
    data = encoded(form, (7, 5), **options)
    assert read_header(data, "here") == (form, (7, 5))
    (tmp_path / "image").write_bytes(data)
    assert read_header(tmp_path / "image", "here") == (form, (7, 5))
    assert images.decode(data, "here").values.shape[:2] == (7, 5)
    if form != "GIF":
        assert images.decode_rgb(data, "here", size=(7, 5)).shape == (7, 5, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_images_with_damaged_bytes_are_decoded_or_refused(form: str) -> None:
    whole = encoded(form, (24, 32))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        data = bytearray(whole[: rng.integers(len(whole))] if seed % 3 == 0 else whole)
        for place in rng.integers(0, max(len(data), 1), 3) if data else ():
            data[place] = rng.integers(256)
        for decode in (images.decode, images.decode_rgb):
            with contextlib.suppress(InputError):  # anything else fails the test
                decode(bytes(data), "here")


def test_a_size_is_compared_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.Image.open", lambda *_: pytest.fail("decoded"))
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0))
    with pytest.raises(InputError, match="20000x20000 pixels are more than are supported"):
        images.decode(head, "here")
    smaller = head.replace(struct.pack(">II", 20000, 20000), struct.pack(">II", 9000, 9000))
    with pytest.raises(InputError, match="expected an image of 320x180, got 9000x9000"):
        images.decode_rgb(smaller, "here", size=(180, 320))


def test_a_large_comment_does_not_matter() -> None:
    whole = encoded("PNG", mode="L")
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(150_000_000), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = images.decode(whole[:33] + bomb + whole[33:], "here")
    assert picture.mode == "L"
    assert picture.values.shape == (7, 5)


def test_only_a_camera_s_note_allows_turned_sides() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded("JPEG", (7, 5), exif=exif)
    assert images.decode_rgb(turned, "here", size=(5, 7)).shape == (5, 7, 3)
    assert images.decode_rgb(turned, "here", size=(7, 5)).shape == (7, 5, 3)
    with pytest.raises(InputError, match="expected an image of 7x5, got 5x7"):
        images.decode_rgb(encoded("JPEG", (7, 5)), "here", size=(5, 7))


# tensors and databases


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04.", b"PK\3\4", struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 2) + b"[]"]
)
def test_what_is_no_safetensors_file_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    for read in (tensors.read_metadata, tensors.read_tensors):
        with pytest.raises(WeightsError, match="expected a safetensors file"):
            read(path)


def test_tensors_and_their_metadata_are_read(tmp_path: Path) -> None:
    save_file({"a": np.arange(3)}, tmp_path / "a.safetensors", {"classes": "[]"})
    assert tensors.read_metadata(tmp_path / "a.safetensors") == {"classes": "[]"}
    assert tensors.read_tensors(tmp_path / "a.safetensors")["a"].tolist() == [0, 1, 2]
    with pytest.raises(WeightsError, match="found a folder"):
        tensors.read_tensors(tmp_path)


def test_a_database_is_a_file_of_sqlite(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found a folder"):
        databases.connect(tmp_path)
    (tmp_path / "text.sqlite").write_text("hello" * 1000)
    broken = databases.connect(tmp_path / "text.sqlite")
    with pytest.raises(InputError, match="cannot be used as a database"), databases.explained(tmp_path / "text.sqlite"):
        broken.execute("SELECT * FROM sqlite_master")
    broken.close()
    fresh = databases.connect(tmp_path / "new.sqlite")
    assert isinstance(fresh, sqlite3.Connection)
    fresh.close()


def test_documents_are_read_without_torch_or_opencv() -> None:
    code = "import sys, tubelet.core.untrusted.documents; assert not {'torch', 'cv2', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
