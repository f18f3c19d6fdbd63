"""Damaged and hostile input, drawn from seeds: pixels, a manifest, or a clear refusal; nothing else ever."""

import functools
import io
import os
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

Draw = Callable[..., Path]


def tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def packed(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunks(*parts: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks."""
    whole = (struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
             for name, body in parts)  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def header(width: int, height: int, depth: int = 8, colour: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def tiff(*entries: tuple[int, int, int, int], data: bytes = b"\0" * 64) -> bytes:
    """A little-endian TIFF with these (tag, type, count, value), its data at offset 8."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one) for one in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + b"\0" * 4


def healthy() -> dict[str, bytes]:
    """One picture a format and a way to store it."""
    rng = np.random.default_rng(7)
    grey = Image.fromarray(rng.integers(0, 256, (40, 50), np.uint8))
    colour = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (40, 50)).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words " * 200
    return {
        "grey.png": packed(grey, "PNG"),
        "colour.png": packed(colour, "PNG"),
        "deep.png": packed(deep, "PNG"),
        "palette.png": packed(colour.quantize(16), "PNG"),
        "exif.png": packed(colour, "PNG", exif=exif),
        "colour.jpg": packed(colour, "JPEG", exif=exif),
        "progressive.jpg": packed(colour, "JPEG", progressive=True),
        "cmyk.jpg": packed(colour.convert("CMYK"), "JPEG"),
        "grey.tif": packed(grey, "TIFF"),
        "deep.tiff": packed(deep, "TIFF"),
        "float.tif": packed(Image.fromarray(rng.normal(size=(40, 50)).astype(np.float32)), "TIFF"),
        "colour.bmp": packed(colour, "BMP"),
        "colour.webp": packed(colour, "WEBP", exif=exif),
        "lossless.webp": packed(colour.convert("RGBA"), "WEBP", lossless=True),
        "palette.gif": packed(colour.quantize(16), "GIF"),
        "animated.gif": packed(grey, "GIF", save_all=True, append_images=[grey.rotate(90)]),
    }


def cut_short(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    for name, whole in healthy().items():
        for _ in range(3):
            end = rng.randrange(1, len(whole) * 4 // 5)
            yield f"cut-{end}-{name}", whole[:end]


def flipped(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    for name, whole in healthy().items():
        for place, most in (("head", 64), ("head", 64), ("body", len(whole)), ("body", len(whole))):
            changed = bytearray(whole)
            for _ in range(rng.choice((1, 3, 10))):
                changed[rng.randrange(min(most, len(whole)))] = rng.randrange(256)
            yield f"{place}-{rng.randrange(10**6)}-{name}", bytes(changed)


@functools.cache
def hostile() -> dict[str, bytes]:
    """Files that no picture program should have written; none of them is a picture that can be used."""
    grey = zlib.compress(b"\0" + b"\1" * 8)
    bomb = zlib.compress(b"\0" * 30_000_000, 9)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("x.png", b"\0" * 10_000_000)
    tape = io.BytesIO()
    with tarfile.open(fileobj=tape, mode="w:gz") as opened:
        opened.addfile(tarfile.TarInfo("x"))
    cmyk = bytearray(healthy()["cmyk.jpg"])
    cmyk[cmyk.index(b"\xff\xc0") + 9] = 2  # two colours of four
    floats = np.ones((4, 4), np.float32)
    size = ((256, 4, 1, 100_000), (257, 4, 1, 100_000))
    strip = ((258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (278, 4, 1, 100_000))
    return {
        "bomb.png": chunks(header(100_000, 100_000), (b"IDAT", grey), (b"IEND", b"")),
        "bomb-with-data.png": chunks(header(100_000, 100_000), (b"IDAT", bomb), (b"IEND", b"")),
        "bomb.tif": tiff(*size, *strip, (279, 4, 1, 64)),
        "bomb.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + b"\0" * 30,
        "bomb-frame.gif": b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b","
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\2\2\x4c\1\0;",
        "bomb.bmp": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "bomb.webp": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0"
        + b"\xff\xff\xff" * 2 + b"\0" * 8,
        "bomb.jpg": healthy()["colour.jpg"].replace(struct.pack(">HH", 40, 50), b"\xff\xdc" * 2),
        "no-width.png": chunks(header(0, 8), (b"IDAT", grey), (b"IEND", b"")),
        "no-palette.png": chunks(header(8, 8, 8, 3), (b"IDAT", b"\0"), (b"IEND", b"")),
        "no-data.png": chunks(header(8, 8), (b"IEND", b"")),
        "odd-depth.png": chunks(header(8, 8, 7, 5), (b"IDAT", grey), (b"IEND", b"")),
        "text-bomb.png": chunks(header(8, 8), *[(b"zTXt", b"a\0\0" + bomb)] * 3, (b"IEND", b"")),
        "profile-bomb.png": chunks(header(8, 8), (b"iCCP", b"a\0\0" + bomb), (b"IEND", b"")),
        "nothing.png": b"",
        "zeros.png": b"\0" * 4096,
        "zeros.jpg": b"\0" * 4096,
        "zeros.tif": b"II*\0" + b"\0" * 4096,
        "noise.bmp": random.Random(3).randbytes(4096),
        "noise.webp": b"RIFF" + random.Random(4).randbytes(4096),
        "many-tags.tif": tiff(*[(256, 4, 2**32 - 1, 0)] * 5000),
        "circle.tif": b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8),
        "nan.tif": packed(Image.fromarray(floats * np.nan), "TIFF"),
        "infinite.tif": packed(Image.fromarray(floats * np.inf), "TIFF"),
        "half-cmyk.jpg": bytes(cmyk),
        "words.png": b"This is no picture.\n" * 50,
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "zip-bomb.png": archive.getvalue(),
        "tape.gif": tape.getvalue(),
        "postscript.tif": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "dicom.png": b"\0" * 128 + b"DICM" + b"\0" * 100,
        "program.bmp": b"\x7fELF" + b"\0" * 200,
    }  # fmt: skip


def odd() -> dict[str, bytes]:
    """Files that are odd but may well be read."""
    files = healthy()
    noted = Image.Exif()
    noted[0x010E] = "x" * 60_000
    small = Image.new("L", (8, 8), 3)
    rows = zlib.compress((b"\0" + b"\1" * 8) * 8)
    loud = zlib.compress((b"\0" + b"\1" * 8) * 3_000_000, 9)
    return {
        "a-png.jpg": files["grey.png"],
        "a-jpg.tif": files["colour.jpg"],
        "a-webp.gif": files["colour.webp"],
        "tail.png": files["grey.png"] + b"\0" * 100_000,
        "tail.jpg": files["colour.jpg"] + b"<html>" * 1000,
        "large-exif.jpg": packed(small, "JPEG", exif=noted),
        "huge-exif.png": chunks(header(8, 8), (b"eXIf", b"II*\0" + b"\xff" * 5_000_000), (b"IDAT", rows),
                                (b"IEND", b"")),
        "too-much-data.png": chunks(header(8, 8), (b"IDAT", loud), (b"IEND", b"")),
        "short-palette.png": chunks(header(8, 8, 8, 3), (b"PLTE", b"\1\2\3"), (b"IDAT", rows),
                                    (b"IEND", b"")),
        "no-end.png": files["grey.png"][:-20] + b"\0" * 20,
        "one.gif": packed(Image.new("L", (1, 1)), "GIF"),
    }  # fmt: skip


def write_all(folder: Path, files: dict[str, bytes]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def write_no_files(folder: Path) -> list[Path]:
    """What stands in a folder under the name of a picture and is none."""
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "endless.png").symlink_to("/dev/zero")
    (folder / "terminal.png").symlink_to("/dev/tty")
    (folder / "loop1.png").symlink_to("loop2.png")
    (folder / "loop2.png").symlink_to("loop1.png")
    (folder / "self.png").symlink_to("self.png")
    (folder / "nowhere.png").symlink_to("none.png")
    (folder / "through-a-file.png").symlink_to("pipe.png/x.png")
    names = ["pipe", "endless", "terminal", "loop1", "loop2", "self", "nowhere", "through-a-file"]
    if os.geteuid():  # root may read everything
        (folder / "locked.png").write_bytes(healthy()["grey.png"])
        (folder / "locked.png").chmod(0)
        names.append("locked")
    return [folder / f"{name}.png" for name in names]


def test_damaged_pictures_are_read_or_refused(tmp_path: Path, read: Callable[..., list]) -> None:
    rng = random.Random(20)
    cut, bad = dict(cut_short(rng)), hostile()
    other = {**dict(flipped(rng)), **odd()}
    files = [write_all(tmp_path / "set", some) for some in (cut, bad, other, healthy())]
    no_files = write_no_files(tmp_path / "set")
    before = tree(tmp_path)
    must, may, fine = [*files[0], *files[1], *no_files], files[2], files[3]
    assert len(must) + len(may) >= 150
    answers = read(*(("picture", file) for file in (*must, *may, *fine)))
    got = dict(zip((*must, *may, *fine), answers, strict=True))
    assert not [file.name for file in must if not isinstance(got[file], str)], "each of these is refused"
    assert all(isinstance(got[file], list) for file in fine), "and each of these is read"
    assert {got[file] for file in no_files} <= {
        "is not a file",
        "does not exist",
        "is damaged",
        "may not be read",
    }
    for name in ("bomb.png", "bomb.tif", "bomb.gif", "bomb.bmp", "bomb.webp", "bomb.jpg"):
        assert "89,478,485 pixels" in got[tmp_path / "set" / name], name
    assert tree(tmp_path) == before


def test_a_set_with_damaged_pictures_tells_all_of_them(
    tmp_path: Path, read: Callable[..., list], draw: Draw
) -> None:
    bad = [file.relative_to(tmp_path).as_posix() for file in write_all(tmp_path / "a", hostile())]
    bad += [file.relative_to(tmp_path).as_posix() for file in write_no_files(tmp_path / "b")]
    for index in range(6):
        draw(tmp_path / "ab"[index % 2] / f"{index}.png", index)
    before = tree(tmp_path)
    (text,) = read(("manifest", tmp_path))
    told = [line.partition(":")[0] for line in text.splitlines()[:-1]]
    assert sorted(told) == sorted(bad)
    assert text.endswith(f"{len(bad)} faults in {tmp_path}; nothing was run.")
    assert tree(tmp_path) == before


def test_a_folder_under_the_name_of_a_picture_is_told(
    tmp_path: Path, read: Callable[..., list], draw: Draw
) -> None:
    for index in range(4):
        draw(tmp_path / "ab"[index % 2] / f"{index}.png", index)
    (tmp_path / "a" / "x.png").mkdir()
    text, alone = read(("manifest", tmp_path), ("picture", tmp_path / "a" / "x.png"))
    assert text.startswith("a/x.png: automed does not look into a folder inside a class folder")
    assert alone == "is not a file"
