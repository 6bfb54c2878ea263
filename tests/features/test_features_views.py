"""Several frame stores as one, against the stores themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asr_distill.errors import UserError
from asr_distill.features.cmvn import CmvnStats
from asr_distill.features.store import AdaptedFrames, FrameStore, Utterance, pack_stats, write_store_index
from asr_distill.features.views import JoinedStores, StoreViews
from asr_distill.files import write_array


def store_at(folder: Path, names: list[str], seed: int, *, lengths: list[int] | None = None,
             coefficients: int = 3, adapted: bool = False) -> FrameStore:
    random = np.random.default_rng(seed)
    lengths = lengths or [5 + i for i in range(len(names))]
    frames = [random.normal(size=(length, coefficients)).astype(np.float16) for length in lengths]
    write_array(folder / "frames.npy", np.concatenate(frames))
    write_store_index(folder, [Utterance(name, f"s{i % 2}", (name.upper(),), 1.0) for i, name in enumerate(names)],
                      lengths, np.stack([pack_stats(CmvnStats.of(part)) for part in frames]), {"config": {}})
    if adapted:
        AdaptedFrames.write(folder, random.normal(size=(sum(lengths), 2)))
    return FrameStore(folder, folder if adapted else None)


def all_frames(store: FrameStore) -> np.ndarray:
    return torch.cat([store.features(i, "cpu").raw for i in range(len(store.utterances))]).numpy()


def test_joined_stores_read_as_one(tmp_path: Path) -> None:
    parts = [store_at(tmp_path / "a", ["a", "b", "c"], 0), store_at(tmp_path / "b", ["d", "e"], 1)]
    joined = JoinedStores(parts)
    expected = np.concatenate([part.frames for part in parts]).astype(np.float32)
    assert joined.num_frames == len(expected) and joined.num_coefficients == 3
    assert joined.offsets.tolist() == [0, 5, 11, 18, 23, 29]
    np.testing.assert_array_equal(all_frames(joined), expected)
    assert [u.id for u in joined.utterances] == ["a", "b", "c", "d", "e"]
    assert joined.index_of("d") == 3
    # both stores hold speakers s0 and s1: a, c, d and b, e
    mine = np.concatenate([expected[:5], expected[11:23]])
    features = joined.features(3, "cpu")
    assert features.speaker_id == "s0" and features.speaker is not None
    np.testing.assert_allclose(features.speaker.mean, mine.mean(0), atol=1e-6)
    np.testing.assert_allclose(joined.total_stats.mean, expected.mean(0), atol=1e-6)
    assert joined.rows.tolist() == list(range(29)) and joined.head == 3
    assert joined.directory == tmp_path / "a"


def test_views_lead_back_to_the_first_store(tmp_path: Path) -> None:
    stores = [store_at(tmp_path / str(seed), ["a", "b"], seed, adapted=seed == 2) for seed in range(3)]
    views = StoreViews(stores)
    assert [u.id for u in views.utterances] == ["a", "b", "a~1", "b~1", "a~2", "b~2"]
    assert [u.words for u in views.utterances] == 3 * [("A",), ("B",)]
    assert views.rows.tolist() == 3 * list(range(11))
    assert views.origins.tolist() == [0, 1, 0, 1, 0, 1]
    np.testing.assert_array_equal(all_frames(views), np.concatenate([s.frames for s in stores]).astype(np.float32))
    for view, store in enumerate(stores):  # each view's speakers have that view's statistics
        features, own = views.features(2 * view + 1, "cpu"), store.features(1, "cpu")
        assert features.speaker_id == ("s1" if not view else f"s1~{view}")
        assert features.speaker is not None and own.speaker is not None
        np.testing.assert_array_equal(features.speaker.total, own.speaker.total)
        assert features.adapted is None if view < 2 else torch.equal(features.adapted, own.adapted)  # type: ignore[arg-type]
    assert [u.id for u in StoreViews(stores[:2], ["", "-noisy"]).utterances][2:] == ["a-noisy", "b-noisy"]


def test_what_does_not_belong_together_is_named(tmp_path: Path) -> None:
    first = store_at(tmp_path / "first", ["a", "b"], 0)
    with pytest.raises(UserError, match="utterance b is in another store too"):
        JoinedStores([first, store_at(tmp_path / "twice", ["b"], 1)])
    with pytest.raises(UserError, match="4 coefficients"):
        JoinedStores([first, store_at(tmp_path / "wide", ["d"], 1, coefficients=4)])
    for name, names, lengths in (("ids", ["a", "c"], None), ("frames", ["a", "b"], [6, 5])):
        with pytest.raises(UserError, match="no view of it"):
            StoreViews([first, store_at(tmp_path / name, names, 1, lengths=lengths)])
