"""Objects of this package handed to other processes: JSON, and one file of arrays that all of them map.

No pickle: what is read makes objects of this package's and torch.nn's classes alone, and runs no other code. A process
that maps the arrays reads from disk what it touches, and processes of one machine share the pages.
"""

from __future__ import annotations

import importlib
import json
import mmap
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

HEAD, ARRAYS = "parcel.json", "arrays.bin"
ALIGNMENT = 64  # bytes
CLASSES = ("asr_distill.", "torch.nn.modules.")  # of modules of these names


def pack(value: Any, directory: Path) -> None:
    """Write `value` to a new directory: plain values, containers, tensors, arrays, objects of CLASSES.

    Arrays that are whole memory maps stay where they are. Raises TypeError for anything else.
    """
    directory.mkdir(parents=True)
    with open(directory / ARRAYS, "wb") as file:
        tree = _Packer(file).plain(value)
    (directory / HEAD).write_text(json.dumps(tree), encoding="utf-8")


def unpack(directory: Path, device: torch.device) -> Any:
    """What `pack` wrote; tensors that lay on a GPU there are put on `device`, others are mapped.

    The directory must stay while the result is used (a local file system keeps deleted files that are mapped; NFS does
    not). Whoever writes to a mapped tensor writes to a copy of its own.
    """
    tree = json.loads((directory / HEAD).read_text(encoding="utf-8"))
    path = directory / ARRAYS
    size = path.stat().st_size
    return _Unpacker(np.memmap(path, np.uint8, "c") if size else np.empty(0, np.uint8), device).value(tree)


class _Packer:
    def __init__(self, file: BinaryIO):
        self.file = file
        self.written: dict[tuple, list] = {}  # what several objects hold is written once
        self.kept: list[torch.Tensor] = []  # so that no other tensor gets the address of a written one
        self.above: set[int] = set()  # objects being written

    def plain(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, (list, tuple, set, frozenset)) and type(value) in (list, tuple, set, frozenset):
            return [type(value).__name__, [self.plain(item) for item in value]]
        if type(value) in (dict, OrderedDict):
            return [type(value).__name__, [[self.plain(key), self.plain(item)] for key, item in value.items()]]
        if isinstance(value, Path):
            return ["path", str(value.absolute())]
        if isinstance(value, torch.dtype):
            return ["dtype", str(value).removeprefix("torch.")]
        if isinstance(value, torch.device):
            return ["device", value.type]
        return self.object(value)

    def tensor(self, value: torch.Tensor) -> list:
        key = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
        if key not in self.written:
            self.kept.append(value)
            whole = value.detach().cpu().contiguous()
            place = self.place(whole.reshape(-1).view(torch.uint8).numpy())
            self.written[key] = [place, str(value.dtype).removeprefix("torch."), list(value.shape),
                                 value.device.type != "cpu"]
        trained = value.requires_grad if isinstance(value, nn.Parameter) else None
        return ["tensor", *self.written[key], trained]

    def array(self, value: np.ndarray) -> list:
        if value.dtype.hasobject:
            raise TypeError(f"an array of {value.dtype} is no numbers")
        if isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap) and value.flags.c_contiguous:
            return ["file", str(Path(value.filename).absolute()), value.dtype.str, value.offset, list(value.shape)]
        place = self.place(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        return ["array", place, value.dtype.str, list(value.shape)]

    def place(self, octets: np.ndarray) -> int:
        """Where in the file they were put."""
        self.file.write(bytes(-self.file.tell() % ALIGNMENT))
        begin = self.file.tell()
        self.file.write(octets.data)
        return begin

    def object(self, value: Any) -> list:
        kind = type(value)
        if not _known(kind.__module__) or "<locals>" in kind.__qualname__:
            raise TypeError(f"{kind.__module__}.{kind.__qualname__} cannot be handed to another process")
        if id(value) in self.above:
            raise TypeError(f"{kind.__qualname__} holds itself")
        self.above.add(id(value))
        own = getattr(kind, "__getstate__", None)
        state = value.__dict__ if own is getattr(object, "__getstate__", None) else value.__getstate__()
        packed = ["object", kind.__module__, kind.__qualname__, self.plain(dict(state))]
        self.above.remove(id(value))
        return packed


class _Unpacker:
    def __init__(self, octets: np.ndarray, device: torch.device):
        self.octets, self.device = octets, device

    def value(self, tree: Any) -> Any:
        if not isinstance(tree, list):
            return tree
        kind, *rest = tree
        return getattr(self, f"_{kind}")(*rest)

    def _list(self, items: list) -> list:
        return [self.value(item) for item in items]

    def _tuple(self, items: list) -> tuple:
        return tuple(self._list(items))

    def _set(self, items: list) -> set:
        return set(self._list(items))

    def _frozenset(self, items: list) -> frozenset:
        return frozenset(self._list(items))

    def _dict(self, items: list) -> dict:
        return {self.value(key): self.value(item) for key, item in items}

    def _OrderedDict(self, items: list) -> OrderedDict:
        return OrderedDict(self._dict(items))

    def _path(self, text: str) -> Path:
        return Path(text)

    def _dtype(self, name: str) -> torch.dtype:
        found = getattr(torch, name)
        assert isinstance(found, torch.dtype)
        return found

    def _device(self, kind: str) -> torch.device:
        return torch.device("cpu") if kind == "cpu" else self.device

    def _tensor(self, place: int, name: str, shape: list[int], moved: bool, trained: bool | None) -> torch.Tensor:
        dtype = self._dtype(name)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        octets = torch.from_numpy(np.asarray(self.octets[place:place + size]))
        tensor = octets.view(dtype).view(shape) if size else torch.empty(shape, dtype=dtype)
        if moved:
            tensor = tensor.to(self.device)
        return tensor if trained is None else nn.Parameter(tensor, requires_grad=trained)

    def _array(self, place: int, name: str, shape: list[int]) -> np.ndarray:
        dtype = np.dtype(name)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        return np.asarray(self.octets[place:place + size]).view(dtype).reshape(shape)

    def _file(self, path: str, name: str, offset: int, shape: list[int]) -> np.ndarray:
        return np.memmap(path, np.dtype(name), "r", offset, tuple(shape))

    def _object(self, module: str, name: str, state: list) -> Any:
        if not _known(module):
            raise TypeError(f"{module}.{name} is no class of this package")
        kind: Any = importlib.import_module(module)
        for part in name.split("."):
            kind = getattr(kind, part)
        if not isinstance(kind, type):
            raise TypeError(f"{module}.{name} is no class")
        made: Any = object.__new__(kind)
        if hasattr(kind, "__setstate__"):
            made.__setstate__(self.value(state))
        else:
            made.__dict__.update(self.value(state))
        return made


def _known(module: str) -> bool:
    return module.startswith(CLASSES)
