"""MNIST: the four idx files of LeCun, Cortes and Burges, read from a folder or downloaded, checked either way.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from asr_distill.corpus.download import download
from asr_distill.errors import UserError, nearest
from asr_distill.lock import exclusive
from asr_distill.logs import log

MIRRORS = {
    "aws": "https://ossci-datasets.s3.amazonaws.com/mnist",
    "google": "https://storage.googleapis.com/cvdf-datasets/mnist",
}
BASE_URL = MIRRORS["aws"]
DIGITS = 10
IMAGES, LABELS = 0x0803, 0x0801  # the magic number: unsigned bytes, of three dimensions and of one
LARGEST = 1 << 30  # bytes: a header that promises more is damaged


@dataclass(frozen=True)
class Resource:
    """One file: `size` and `md5` of the archive as published, `content_md5` of what is in it."""

    size: int
    md5: str
    content_md5: str


# Packed again, the same images have another archive digest: `content_md5` is what makes them MNIST.
FILES = {
    "train-images-idx3-ubyte.gz": Resource(
        9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte.gz": Resource(
        28_881, "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte.gz": Resource(
        1_648_877, "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte.gz": Resource(
        4_542, "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}
PREFIXES = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Digits:
    """Images uint8 (N, height, width), 0 = background, and what they show, uint8 (N,), 0 to 9."""

    images: np.ndarray
    labels: np.ndarray


def find_mnist(folder: Path | None, download_dir: Path, base_url: str = "") -> dict[str, Digits]:
    """Splits `train` and `test` from `folder`, or (None) downloaded into `download_dir` once.

    Raises UserError where a file is missing, damaged or not what its name says.
    """
    if folder is None:
        with exclusive(download_dir, "give another --set data.download_dir=DIR"):
            folder = download_mnist(download_dir / "mnist", base_url)
    return read_mnist(folder)


def download_mnist(dest: Path, base_url: str = "", *, files: dict[str, Resource] = FILES) -> Path:
    """Fetch the four archives into `dest`, which is returned. `base_url`: a name in MIRRORS, or a URL.

    What is there is checked, not fetched. Raises UserError as `download` does.
    """
    base = MIRRORS.get(base_url, base_url or BASE_URL).rstrip("/")
    if "://" not in base:
        raise UserError(f"data.base_url={base_url}: neither a URL nor a known mirror{nearest(base_url, MIRRORS)}; "
                        f"known: {', '.join(MIRRORS)}")
    for name, resource in files.items():
        download(f"{base}/{name}", dest / name, size=resource.size, md5=resource.md5)
    return dest


def read_mnist(folder: Path) -> dict[str, Digits]:
    """Splits `train` and `test` of a folder with the four files, packed (.gz) or not.

    Other images in the same form will do (a part of MNIST, Fashion-MNIST); the log says that they are others.
    Raises UserError as `read_idx` does, and where images and labels do not belong together.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the one with MNIST's four files, --set data.dir=DIR")
    known, splits = True, {}
    for split, prefix in PREFIXES.items():
        paths = [_find(folder, f"{prefix}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")]
        images, images_md5 = read_idx(paths[0], IMAGES)
        labels, labels_md5 = read_idx(paths[1], LABELS)
        if len(images) != len(labels):
            raise UserError(f"{paths[0]}: {len(images):,} images, but {paths[1].name} has {len(labels):,} labels; "
                            "put files of one set there")
        if not len(images):
            raise UserError(f"{paths[0]}: holds no image")
        if labels.max() >= DIGITS:
            raise UserError(f"{paths[1]}: a label of {labels.max()}, expected 0 to {DIGITS - 1}; "
                            "the file is damaged, or of another task")
        expected = [FILES[f"{prefix}-{kind}-ubyte.gz"].content_md5 for kind in ("images-idx3", "labels-idx1")]
        known &= [images_md5, labels_md5] == expected
        splits[split] = Digits(images, labels)
    sizes = {digits.images.shape[1:] for digits in splits.values()}
    if len(sizes) > 1:
        raise UserError(f"{folder}: images for training are of {splits['train'].images.shape[1:]} pixels, for the "
                        f"test of {splits['test'].images.shape[1:]}; put files of one set there")
    if not known:
        log.warning("%s: not MNIST's own images and labels; its published figures do not compare", folder)
    return splits


def read_idx(path: Path, magic: int) -> tuple[np.ndarray, str]:
    """An idx file of bytes, by its magic number (IMAGES or LABELS): the array uint8, and the MD5 of the content.

    No byte is read beyond what the header promises. Raises UserError where the file is missing, of another kind,
    truncated, longer than it says, or no gzip archive.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    mend = "delete it and copy or download it again"
    try:
        with opened(path, "rb") as file:
            header = _exactly(file, 4 + 4 * (magic & 0xFF))
            found, *shape = (int.from_bytes(header[at:at + 4], "big") for at in range(0, len(header), 4))
            if found != magic:
                raise UserError(f"{path}: begins with {found:#010x}, not with {magic:#010x} as an idx file of "
                                f"{'images' if magic == IMAGES else 'labels'} does; {mend}")
            size = int(np.prod(shape, dtype=object))
            if size > LARGEST:
                raise UserError(f"{path}: its header promises {size:,} bytes; it is damaged, {mend}")
            body = _exactly(file, size)
            if file.read(1):
                raise UserError(f"{path}: longer than the {' x '.join(map(str, shape))} bytes of its header; {mend}")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the folder with MNIST's four files, --set data.dir=DIR") from None
    except EOFError:
        raise UserError(f"{path}: truncated; {mend}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip archive ({error}); {mend}") from None
    digest = hashlib.md5(header, usedforsecurity=False)
    digest.update(body)
    return np.frombuffer(body, np.uint8).reshape(shape), digest.hexdigest()


def _exactly(file: BinaryIO | gzip.GzipFile, size: int) -> bytes:
    """The next `size` bytes. Raises EOFError where there are fewer."""
    pieces, left = [], size
    while left:  # piecewise: a false header costs no more memory than the file holds
        piece = file.read(min(left, 1 << 20))
        if not piece:
            raise EOFError
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _find(folder: Path, name: str) -> Path:
    """The archive, or the file that was unpacked from it."""
    unpacked = folder / name.removesuffix(".gz")
    return unpacked if unpacked.is_file() and not (folder / name).is_file() else folder / name
