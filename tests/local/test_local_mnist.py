"""MNIST's files: read, refused where they are damaged, downloaded from a server of our own."""

from __future__ import annotations

import gzip
import hashlib
import logging
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from asr_distill.errors import UserError
from local import mnist
from local.mnist import FILES, IMAGES, LABELS, Resource, download_mnist, find_mnist, read_idx, read_mnist

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES


def idx(array: np.ndarray) -> bytes:
    """The content of an idx file, written down from its description."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 + 10 images of 4 x 5 pixels."""
    random = np.random.default_rng(0)
    where = tmp_path / "mnist"
    where.mkdir()
    for prefix, count in (("train", 30), ("t10k", 10)):
        for kind, array in (("images-idx3", random.integers(0, 256, (count, 4, 5))),
                            ("labels-idx1", random.permutation(np.arange(count) % 10))):
            (where / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return where


def repack(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content))


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())


def test_images_and_labels_are_read_as_they_were_written(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (7, 3, 2))
    repack(tmp_path / "a.gz", idx(images))
    (tmp_path / "b").write_bytes(idx(images[:, 0, 0]))  # unpacked
    found, digest = read_idx(tmp_path / "a.gz", IMAGES)
    assert found.dtype == np.uint8 and np.array_equal(found, images)
    assert digest == hashlib.md5(idx(images)).hexdigest()
    assert np.array_equal(read_idx(tmp_path / "b", LABELS)[0], images[:, 0, 0])


def test_a_folder_packed_or_not(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    packed = read_mnist(folder)
    assert {split: digits.images.shape for split, digits in packed.items()} == {"train": (30, 4, 5), "test": (10, 4, 5)}
    assert sorted(packed["test"].labels) == list(range(10))
    assert "not MNIST's own images" in caplog.text
    for name in FILES:
        (folder / name.removesuffix(".gz")).write_bytes(content(folder / name))
        (folder / name).unlink()
    plain = find_mnist(folder, folder / "unused")
    assert all(np.array_equal(plain[split].images, packed[split].images) for split in packed)


def test_the_real_ones(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    if not (shared / "mnist").is_dir():
        pytest.skip(f"needs {shared / 'mnist'} (MNIST)")
    splits = read_mnist(shared / "mnist")
    assert splits["train"].images.shape == (60000, 28, 28) and splits["test"].images.shape == (10000, 28, 28)
    assert np.bincount(splits["test"].labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert splits["train"].labels[:5].tolist() == [5, 0, 4, 1, 9]
    with caplog.at_level(logging.WARNING, "asr_distill"):
        read_mnist(shared / "mnist")
    assert not caplog.text  # the digests in FILES are those of the real content


FAULTS = {
    "truncated archive": (lambda path: path.write_bytes(path.read_bytes()[:-30]), "truncated"),
    "half an archive": (lambda path: path.write_bytes(path.read_bytes()[:80]), "truncated"),
    "an empty file": (lambda path: path.write_bytes(b""), "truncated"),
    "no archive": (lambda path: path.write_bytes(b"<html>not found</html>"), "not a whole gzip archive"),
    "a flipped byte": (lambda path: path.write_bytes(
        path.read_bytes()[:300] + bytes([path.read_bytes()[300] ^ 255]) + path.read_bytes()[301:]),
        "not a whole gzip archive|truncated"),
    "content cut off": (lambda path: repack(path, content(path)[:-1]), "truncated"),
    "content too long": (lambda path: repack(path, content(path) + b"x"), "longer than the 30 x 4 x 5 bytes"),
    "only a header": (lambda path: repack(path, content(path)[:9]), "truncated"),
    "labels for images": (lambda path: repack(path, content(path.with_name(TRAIN_LABELS))), "0x00000801, not with"),
    "an image of floats": (lambda path: repack(path, b"\0\0\x0d" + content(path)[3:]), "0x00000d03, not with"),
    "a huge header": (lambda path: repack(path, content(path)[:4] + b"\x7f\xff\xff\xff" * 3), "its header promises"),
    "no image": (lambda path: (repack(path, idx(np.zeros((0, 4, 5)))),
                               repack(path.with_name(TRAIN_LABELS), idx(np.zeros(0)))), "holds no image"),
    "one label short": (lambda path: repack(path.with_name(TRAIN_LABELS), idx(np.zeros(29))),
                        "30 images, but .* 29 labels"),
    "images of other sizes": (lambda path: repack(path, idx(np.zeros((30, 5, 5)))), r"\(5, 5\) pixels"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_named_with_its_mend(folder: Path, fault: str) -> None:
    break_it, message = FAULTS[fault]
    break_it(folder / TRAIN_IMAGES)
    with pytest.raises(UserError, match=message) as raised:
        read_mnist(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def test_missing_files_and_wrong_labels(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder.*--set data\.dir"):
        read_mnist(tmp_path / "nowhere")
    repack(folder / TEST_LABELS, idx(np.arange(10) + 1))
    with pytest.raises(UserError, match=f"{TEST_LABELS}: a label of 10, expected 0 to 9"):
        read_mnist(folder)
    (folder / TEST_LABELS).unlink()
    with pytest.raises(UserError, match=rf"{TEST_LABELS}: no such file.*--set data\.dir"):
        read_mnist(folder)


class Quiet(SimpleHTTPRequestHandler):
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Base URL of a server of `folder`, and the paths that it is asked for."""
    requests: list[str] = []
    handler = type("Handler", (Quiet,), {"requests": requests})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder.parent))) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/mnist/", requests
        running.shutdown()
        thread.join()


def published(folder: Path) -> dict[str, Resource]:
    return {name: Resource((folder / name).stat().st_size, hashlib.md5((folder / name).read_bytes()).hexdigest(),
                           hashlib.md5(content(folder / name)).hexdigest()) for name in FILES}


def test_download_once(server: tuple[str, list[str]], folder: Path, tmp_path: Path,
                       monkeypatch: pytest.MonkeyPatch) -> None:
    url, requests = server
    files = published(folder)
    monkeypatch.setattr(download_mnist, "__kwdefaults__", {"files": files})
    monkeypatch.setattr(mnist, "FILES", files)
    splits = find_mnist(None, tmp_path / "data", url)
    assert requests == [f"/mnist/{name}" for name in FILES]
    assert np.array_equal(splits["train"].images, read_mnist(folder)["train"].images)
    find_mnist(None, tmp_path / "data", url)
    assert len(requests) == 4  # all is there


def test_other_bytes_are_refused_and_removed(server: tuple[str, list[str]], folder: Path, tmp_path: Path) -> None:
    url, _ = server
    files = published(folder)
    archive = folder / TRAIN_LABELS
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=f"{TRAIN_LABELS}.*MD5 .* expected {files[TRAIN_LABELS].md5}"):
        download_mnist(tmp_path / "data", url, files=files)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [TRAIN_IMAGES]
    with pytest.raises(UserError, match="404"):
        download_mnist(tmp_path / "other", f"{url}nothing", files=files)


def test_mirrors_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    urls: list[str] = []
    monkeypatch.setattr(mnist, "download", lambda url, dest, **_: urls.append(url) or dest)
    for name in ("", "google", "http://127.0.0.1/own/"):
        download_mnist(tmp_path, name)
    assert urls[::4] == [f"{mnist.BASE_URL}/{TRAIN_IMAGES}", f"{mnist.MIRRORS['google']}/{TRAIN_IMAGES}",
                         f"http://127.0.0.1/own/{TRAIN_IMAGES}"]
    with pytest.raises(UserError, match=r"data\.base_url=gogle.*did you mean 'google'"):
        download_mnist(tmp_path, "gogle")
