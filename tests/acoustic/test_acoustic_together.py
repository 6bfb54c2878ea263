"""Several utterances in one pass: the posteriors of each alone, whatever the network and the lengths."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from acoustic_kinds import KINDS
from acoustic_stand_ins import store_of

from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.together import GROUP_FRAMES, groups, posteriors_together
from asr_distill.features.cmvn import Cmvn, UtteranceFeatures

CPU = torch.device("cpu")
LENGTHS = (37, 1, 80, 2)


def store_and_model(kind: str, seed: int = 0) -> tuple[list[UtteranceFeatures], AcousticModel]:
    random = np.random.default_rng(seed)
    store = store_of([random.normal(size=(length, 6)) for length in LENGTHS])
    network = build_network(KINDS[kind], 6, 9, seed=seed).eval()
    torch.nn.init.normal_(network.output.weight, generator=torch.Generator().manual_seed(seed))
    model = AcousticModel(network, Cmvn("global", store.total_stats), torch.full((9,), 1 / 9).log(), KINDS[kind])
    return [store.features(index, CPU) for index in range(len(LENGTHS))], model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_as_each_alone(kind: str, temperature: float) -> None:
    features, model = store_and_model(kind)
    alone = torch.cat([model.log_posteriors(each, temperature) for each in features])
    together = model.log_posteriors_of(features, temperature)
    assert together.shape == (sum(LENGTHS), 9) and together.dtype == torch.float32
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_an_ensemble_of_what_can_and_what_cannot(mean: str) -> None:
    features, model = store_and_model("tdnn_stride")

    class Single:
        """A model that takes one utterance at a time."""

        num_pdfs, device = 9, CPU

        def log_posteriors(self, utterance: UtteranceFeatures, temperature: float = 1.0) -> torch.Tensor:
            return store_and_model("feed_forward")[1].log_posteriors(utterance, temperature)

    ensemble = Ensemble([model, Single()], mean, (1.0, 2.0))  # type: ignore[arg-type]
    alone = torch.cat([ensemble.log_posteriors(each, 2.0) for each in features])
    torch.testing.assert_close(posteriors_together(ensemble, features, 2.0), alone, atol=2e-5, rtol=0)


def test_bfloat16_is_computed_in_bfloat16() -> None:
    features, model = store_and_model("tdnn_stride")
    cast = model.cast(torch.bfloat16)
    alone = torch.cat([cast.log_posteriors(each) for each in features])
    assert (cast.log_posteriors_of(features).exp() - alone.exp()).abs().max() < 0.02


def test_groups() -> None:
    lengths = [3000, 3000, 3000, 100, 9000, 5]
    found = [list(group) for group in groups(lengths, torch.device("cuda"))]
    assert found == [[0, 1], [2, 3], [4], [5]] and GROUP_FRAMES == 8192
    assert [list(group) for group in groups(lengths, CPU)] == [[index] for index in range(6)]
    assert list(groups([], CPU)) == []


def test_normalisation_is_each_utterances_own() -> None:
    features, model = store_and_model("feed_forward")
    online = dataclasses.replace(model, cmvn=dataclasses.replace(model.cmvn, kind="online"))
    alone = torch.cat([online.log_posteriors(each) for each in features])
    torch.testing.assert_close(online.log_posteriors_of(features), alone, atol=2e-5, rtol=0)
