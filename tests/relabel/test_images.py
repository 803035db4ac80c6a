"""Reading your own images, of any size and mode; unusable ones are named and counted."""

import struct
import sys
import types
import zlib

import numpy as np
import pytest
from own_images import lay, names, pictures, save, write_csv
from PIL import Image, ImageFile, ImageOps

from sln.relabel import images
from sln.relabel.kinds import in_rgb


@pytest.fixture
def folder(tmp_path):
    return lay(tmp_path / "mine", count=12)


def test_a_folder_gives_its_pixels_and_classes_in_order(folder):
    found = images.read(folder)
    pixels, labels = pictures(12)
    order = [*range(0, 12, 2), *range(1, 12, 2)]  # by class, then by name
    assert names(found) == [f"{'right' if i % 2 else 'left'}/{i:03}.png" for i in order]
    assert found.labels == ["right" if labels[i] else "left" for i in order]
    assert np.array_equal(found.images.numpy(), pixels[order])
    assert found.skipped == []


def test_a_csv_gives_the_same_in_its_own_order(folder, tmp_path):
    whole = images.read(folder)
    rows = [(entry.name, entry.label) for entry in reversed(whole.entries)]
    found = images.read(write_csv(folder / "list.csv", rows))
    assert [(entry.name, entry.label) for entry in found.entries] == rows
    assert [entry.record for entry in found.entries] == list(range(1, 13))
    assert np.array_equal(found.images.numpy(), whole.images.numpy()[::-1])
    elsewhere = images.read(write_csv(tmp_path / "list.csv", rows), root=folder)
    assert names(elsewhere) == names(found)


def test_every_kind_of_bad_entry_is_skipped_with_its_name_and_a_reason(folder, tmp_path):
    save(pictures(1, seed=9)[0][0], tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "broken.png").write_bytes((folder / "left" / "000.png").read_bytes()[:60])
    (folder / "text.png").write_text("no image")
    (folder / "nothing.png").touch()
    (folder / "floats.tiff").parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "floats.tiff")
    bad = {
        "../outside.png": "leads out",
        str(tmp_path / "outside.png"): "leads out",
        "link.png": "leads out",
        "broken.png": "it is damaged (image file is truncated",
        "nothing.png": "it is empty",
        "text.png": "none of JPEG, PNG",
        "floats.tiff": "floating-point",
        "none.png": "missing",
        "left": "missing",
        "zero\0byte.png": "cannot be used",
        "long" * 100: "cannot be used",
    }
    good = [(f"{c}/{i:03}.png", c) for i, c in enumerate(["left", "right"] * 3)]
    extra = [("left/006.png", ""), ("left/008.png", "only one"), ("", "left")]
    found = images.read(write_csv(folder / "list.csv", [*good, *((name, "left") for name in bad), *extra]))
    assert names(found) == [*(name for name, _ in good), "left/008.png"]
    skipped = dict(found.skipped)
    assert skipped.keys() == {*bad, "left/006.png", f"record {len(good) + len(bad) + 3}"}
    assert all(words in skipped[name] for name, words in bad.items())
    assert "no path" in skipped[f"record {len(good) + len(bad) + 3}"]
    assert "no label" in skipped["left/006.png"]
    assert all("\n" not in reason and reason for reason in skipped.values())


def test_names_of_any_kind_are_read(tmp_path):
    odd = ["=1+1", "two words", 'a "quote"', "Käfer 虫", "a,b", "<b>bold<b>", "-x", "@y", "new\nline"]
    pixels, _ = pictures(2 * len(odd))
    for number, image in enumerate(pixels):
        save(image, tmp_path / "mine" / odd[number % len(odd)] / f"{odd[-1 - number % len(odd)]}{number}.png")
    found = images.read(tmp_path / "mine")
    assert sorted(set(found.labels)) == sorted(odd)
    assert len(found.entries) == 2 * len(odd)
    rows = [(entry.name, entry.label) for entry in found.entries]
    again = images.read(write_csv(tmp_path / "mine" / "list.csv", rows))
    assert [(entry.name, entry.label) for entry in again.entries] == rows


def test_identical_images_are_one_group(folder):
    first = (folder / "left" / "000.png").read_bytes()
    (folder / "right" / "copy.png").write_bytes(first)
    found = images.read(folder)
    groups = dict(zip(names(found), found.groups.tolist(), strict=True))
    assert groups["left/000.png"] == groups["right/copy.png"]
    assert len(set(groups.values())) == 12


def test_bad_sources_are_refused_in_one_line(folder, tmp_path, refused):
    (folder / "empty").mkdir()
    (folder / "empty" / "a.png").write_text("no image")
    with refused("'empty'", "could be read", "a.png"):
        images.read(folder)
    one = lay(tmp_path / "one", count=1)
    with refused("no label", "two are needed"):
        images.read(one)
    for path in one.rglob("*.png"):
        path.write_text("no image")
    with refused("could be read", "'left'"):
        images.read(one, groups=r"(.*)\.png")
    for size in (7, 2000):
        with refused(f"size is {size}"):
            images.read(lay(tmp_path / "two", count=4), size=size)


# --- HEIC, the format of telephones


@pytest.fixture
def heic(tmp_path):
    """A folder of two classes whose images are all HEIC, under whatever name."""
    for number, name in enumerate(["a/0.HEIC", "a/1.jpg", "b/0.heif", "b/1.heic"]):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes([number]) * 200)
    images._formats.cache_clear()
    yield tmp_path / "mine"
    images._formats.cache_clear()


def test_a_folder_of_heic_says_what_to_install(heic, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # not installed
    with refused("'a/0.HEIC'", "convert", "pip install pillow-heif"):
        images.read(heic)


def test_heic_is_read_if_its_decoder_is_installed(heic, monkeypatch):
    class Decoder(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._size, self._mode = (8, 8), "L"
            self.tile = [ImageFile._Tile("raw", (0, 0, 8, 8), 12, ("L", 0, 1))]

    decoder = types.ModuleType("pillow_heif")
    decoder.register_heif_opener = lambda: Image.register_open(
        "HEIF", Decoder, lambda start: start[4:8] == b"ftyp"
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", decoder)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    assert images.read(heic).images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


# --- sizes and modes


def test_small_images_are_not_enlarged_and_large_ones_become_32(tmp_path):
    assert images.read(lay(tmp_path / "small", side=10)).images.shape[2:] == (10, 10)
    assert images.read(lay(tmp_path / "tiny", side=4)).images.shape[2:] == (8, 8)
    large = lay(tmp_path / "large", side=100)
    assert images.read(large).images.shape[2:] == (32, 32)
    assert images.read(large, size=64).images.shape[2:] == (64, 64)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_every_mode_becomes_the_same_grey_square(mode, tmp_path):
    grey = np.full((20, 30), 255, np.uint8)
    grey[:, :15] = 0
    if mode.startswith("I"):
        image = Image.fromarray(grey.astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    else:
        image = Image.fromarray(grey).convert(mode)
    path = tmp_path / f"image.{'tiff' if mode in ('CMYK', 'I') else 'png'}"
    image.save(path)
    found = images.decode(path)
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), np.repeat(grey[:, :, None], 3, axis=2))


def test_transparency_becomes_white_and_the_orientation_is_applied(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(images.decode(tmp_path / "clear.png")).min() == 255
    image, exif = Image.new("L", (8, 16)), Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert images.decode(tmp_path / "turned.jpg").size == (16, 8)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])  # Pillow turns a TIFF as soon as it is loaded
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_as_by_pillow(orientation, ending, tmp_path):
    image, exif = Image.fromarray(pictures(1, side=10)[0][0].transpose(1, 2, 0)[:8]), Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"turned.{ending}"
    image.save(file, exif=exif)
    with Image.open(file) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert expected.shape == ((10, 8, 3) if orientation > 4 else (8, 10, 3))
    assert np.array_equal(np.asarray(images.decode(file)), expected)
    with Image.open(file) as stored:
        assert np.array_equal(np.asarray(in_rgb(stored)), expected)


def test_negative_pixels_are_refused(tmp_path, refused):
    Image.fromarray(np.full((8, 8), -3, np.int32)).save(tmp_path / "scan.tiff")
    with refused("it has negative pixels", "from 0 on"):
        images.decode(tmp_path / "scan.tiff")


def test_odd_exif_tags_do_no_harm(tmp_path):
    tiff = b"II*\0\x08\0\0\0\x02\0"  # two tags: orientation 6, and a resolution that is text
    tiff += b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\x1a\x01\x02\0\x03\0\0\x0072\0\0" + b"\0\0\0\0"
    Image.new("L", (8, 16)).save(tmp_path / "odd.jpg", exif=b"Exif\0\0" + tiff)
    with Image.open(tmp_path / "odd.jpg") as stored, pytest.raises(TypeError):
        ImageOps.exif_transpose(stored)
    assert images.decode(tmp_path / "odd.jpg").size == (16, 8)


@pytest.mark.parametrize("white", [255, 3000, 4095, 65535])
def test_images_of_more_than_8_bits_share_one_scale(white, tmp_path):
    for number, label in enumerate(["dark", "light"] * 2):
        grey = np.full((8, 8), white if label == "light" else white // 4, np.uint16)
        grey[number] = 0
        path = tmp_path / "mine" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(path)
    found = images.read(tmp_path / "mine")
    assert found.white == white
    assert found.images.amax(dim=(1, 2, 3)).tolist() == 2 * [255 * (white // 4) // white] + [255, 255]
    assert np.asarray(images.picture(found, found.entries[0])).max() == 255 * (white // 4) // white


def png_of_16_bits(pixels):
    """A PNG of (H, W, channels) uint16, every row as its difference from the pixel before (filter 1)."""

    def chunk(name, content):
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    height, width, channels = pixels.shape
    values = pixels.astype(">u2").view(np.uint8).reshape(height, width, 2 * channels)
    rows = np.diff(values, axis=1, prepend=np.uint8(0)).reshape(height, -1)
    lines = np.hstack([np.ones((height, 1), np.uint8), rows])
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff_of_16_bits(pixels, order, *, deflated=False):
    """A TIFF of (H, W, 3) uint16 in one strip, little- ("<") or big-endian (">")."""
    height, width, _ = pixels.shape
    content, after = pixels.astype(f"{order}u2").tobytes(), 8 + 2 + 9 * 12 + 4
    content = zlib.compress(content) if deflated else content
    short, long = f"{order}HHIHH", f"{order}HHII"
    entries = [struct.pack(short, tag, 3, 1, value, 0) for tag, value in [(256, width), (257, height)]]
    entries.append(struct.pack(long, 258, 3, 3, after))
    entries += [
        struct.pack(short, tag, 3, 1, value, 0) for tag, value in [(259, 8 if deflated else 1), (262, 2)]
    ]
    entries.append(struct.pack(long, 273, 4, 1, after + 6))
    entries += [struct.pack(short, tag, 3, 1, value, 0) for tag, value in [(277, 3), (278, height)]]
    entries.append(struct.pack(long, 279, 4, 1, len(content)))
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    return start + b"".join([*entries, bytes(4), struct.pack(f"{order}HHH", 16, 16, 16), content])


KINDS = {
    "RGB": lambda grey: png_of_16_bits(grey.repeat(3, axis=2)),
    "RGBA": lambda grey: png_of_16_bits(np.dstack([grey.repeat(3, axis=2), np.full_like(grey, 65535)])),
    "LA": lambda grey: png_of_16_bits(np.dstack([grey, np.full_like(grey, 65535)])),
    "little-endian TIFF": lambda grey: tiff_of_16_bits(grey.repeat(3, axis=2), "<"),
    "big-endian TIFF": lambda grey: tiff_of_16_bits(grey.repeat(3, axis=2), ">"),
    "deflated TIFF": lambda grey: tiff_of_16_bits(grey.repeat(3, axis=2), ">", deflated=True),
}


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_colours_of_more_than_8_bits_are_read_as_the_same_pixels_in_grey(kind, bits, tmp_path):
    rng = np.random.default_rng(0)
    for number, label in enumerate(["a", "b"] * 3):
        grey = rng.integers(2**bits, size=(8, 9, 1)).astype(np.uint16)
        for folder, write in {"grey": png_of_16_bits, "colour": KINDS[kind]}.items():
            path = tmp_path / folder / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(write(grey))
    grey, colour = images.read(tmp_path / "grey"), images.read(tmp_path / "colour")
    assert grey.white == colour.white > 2 ** (bits - 1)
    assert grey.images.float().std() > 50
    assert np.array_equal(grey.images, colour.images)


def test_the_colours_of_16_bits_keep_their_channels_and_their_opacity(tmp_path):
    pixels = np.full((8, 8, 4), [4095, 2048, 0, 65535], np.uint16)
    pixels[0, :, 3] = 0
    (tmp_path / "a.png").write_bytes(png_of_16_bits(pixels))
    found = images.decode(tmp_path / "a.png", 4095)
    assert found.getpixel((0, 1)) == (255, 127, 0)
    assert found.getpixel((0, 0)) == (255, 255, 255)


def test_black_images_of_16_bits_are_black(tmp_path):
    for number, label in enumerate(["left", "right"] * 2):
        path = tmp_path / "mine" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8 + number), np.uint16)).save(path)
    found = images.listed(tmp_path / "mine")
    images._sample(found)  # which sets white
    assert [np.asarray(images.picture(found, entry)).max() for entry in found.entries] == [0] * 4


def test_the_square_is_the_whole_image_antialiased(tmp_path):
    for number, label in enumerate(["left", "right"] * 2):
        stripes = np.tile(np.array([0, 247 + 2 * number], np.uint8), (3, 64, 32))
        save(stripes, tmp_path / "mine" / label / f"{number}.png")
    squares = images.read(tmp_path / "mine", size=8).images
    assert squares.shape == (4, 3, 8, 8)
    assert np.abs(squares.numpy().astype(int) - 127).max() <= 20
