"""Generalist and specialists as one emission model, and a teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.together import posteriors_together
from asr_distill.distill.fingerprint import fingerprint_of
from asr_distill.distill.specialists.combine import Groups, combine
from asr_distill.distill.specialists.specialist import Specialist
from asr_distill.distill.specialists.train import load_specialists
from asr_distill.errors import UserError
from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.files import read_json, write_json

BLOCK = (1024, 16_384)  # frames that are combined at once, on a GPU the second: bounds memory
COMBINED = "combined.json"
Ask = Callable[[Specialist, torch.Tensor], torch.Tensor]  # rows int64 (k,) -> log posteriors (k, senones + 1)


class Generalist(PosteriorModel, Protocol):
    """An AcousticModel, an Ensemble: posteriors over all senones, and priors."""

    @property
    def log_priors(self) -> torch.Tensor:
        """float32 (pdfs,)"""


class GeneralistWithSpecialists:
    """On each frame the generalist and the specialists for what it thinks possible, combined (paper, section 5.5).

    A specialist is active on a frame where one of the generalist's `active_top` best senones is in its set. Where none
    is, the generalist speaks alone. Raises ValueError where a specialist's senones are not the generalist's.
    """

    def __init__(self, generalist: Generalist, specialists: Sequence[Specialist], active_top: int = 1):
        pdfs = generalist.num_pdfs
        if any(not 0 <= pdf < pdfs for specialist in specialists for pdf in specialist.senones):
            raise ValueError(f"specialists of senones beyond the generalist's {pdfs}")
        if active_top < 1:
            raise ValueError(f"active_top must be >= 1, not {active_top}")
        self.generalist, self.specialists, self.active_top = generalist, tuple(specialists), min(active_top, pdfs)
        sets = [specialist.senones for specialist in specialists]
        self.groups = Groups.of(sets, pdfs, generalist.device)
        self.members = torch.zeros(len(sets), pdfs, dtype=torch.bool)
        for row, members in zip(self.members, sets, strict=True):
            row[list(members)] = True
        self.members = self.members.to(generalist.device)

    @property
    def num_pdfs(self) -> int:
        return self.generalist.num_pdfs

    @property
    def device(self) -> torch.device:
        return self.generalist.device

    @property
    def log_priors(self) -> torch.Tensor:
        """The generalist's."""
        return self.generalist.log_priors

    @property
    def coverage(self) -> torch.Tensor:
        """How many specialists' sets each senone is in, int64 (pdfs,)."""
        return self.members.sum(0)

    @torch.inference_mode()
    def log_posteriors(self, utterance: UtteranceFeatures, temperature: float = 1.0) -> torch.Tensor:
        """log q, float32 (frames, pdfs); at a temperature T log of the generalist's tempered p_T * (q / p)^(1/T).

        For a single network as the generalist that is softmax(log q / T): q's logits are tempered, as any network's
        are. (Tempering each specialist's logits instead would shrink its dustbin, one class for many, against the many
        tempered classes that it stands for.) Without active specialists it is the generalist's own at T, ensembles too.
        """
        general = self.generalist.log_posteriors(utterance)  # (frames, pdfs)
        log_q = self._combined(general, lambda specialist, rows: specialist.log_posteriors(utterance, rows))
        if temperature == 1:
            return log_q
        return _tempered(self.generalist.log_posteriors(utterance, temperature), log_q, general, temperature)

    @torch.inference_mode()
    def log_posteriors_of(self, utterances: Sequence[UtteranceFeatures], temperature: float = 1.0) -> torch.Tensor:
        """The same of several utterances in one pass, float32 (frames of all, pdfs)."""
        general = posteriors_together(self.generalist, utterances)
        given: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = {}  # to networks that hear alike

        def ask(specialist: Specialist, rows: torch.Tensor) -> torch.Tensor:
            model = specialist.model
            heard = (json.dumps(model.cmvn.to_dict()), model.network.left, model.network.right, model.network.dtype)
            if heard not in given:
                given[heard] = model.windows_of(utterances)
            windows, places = given[heard]
            return specialist.corrected(model.network(windows, places[rows]))

        log_q = self._combined(general, ask)
        if temperature == 1:
            return log_q
        return _tempered(posteriors_together(self.generalist, utterances, temperature), log_q, general, temperature)

    def log_likelihoods(self, utterance: UtteranceFeatures) -> torch.Tensor:
        """log q - log prior, float32 (frames, pdfs)."""
        return self.log_posteriors(utterance) - self.log_priors

    def active(self, log_posteriors: torch.Tensor) -> torch.Tensor:
        """Who is active, bool (frames, specialists), from the generalist's log posteriors (frames, pdfs)."""
        best = log_posteriors.topk(self.active_top, 1).indices  # (frames, active_top)
        return self.members[:, best].any(2).T

    def _combined(self, general: torch.Tensor, ask: Ask) -> torch.Tensor:
        active = self.active(general)
        if not bool(active.any()):
            return general
        log_mass = general.clone()
        dustbins = torch.zeros(active.shape, dtype=torch.float64, device=general.device)
        for column, specialist in enumerate(self.specialists):
            rows = active[:, column].nonzero().squeeze(1)
            if not len(rows):
                continue
            special = ask(specialist, rows)  # (rows, senones + 1)
            place = (rows.unsqueeze(1), torch.tensor(specialist.senones, device=rows.device))
            log_mass[place] = torch.logaddexp(log_mass[place], special[:, :-1])
            dustbins[rows, column] = special[:, -1].double().exp()
        asked = active.any(1).nonzero().squeeze(1)
        result = general.clone()
        for rows in asked.split(BLOCK[general.device.type == "cuda"]):
            result[rows] = combine(log_mass[rows], dustbins[rows], active[rows], self.groups)
        return result

    def cast(self, dtype: torch.dtype) -> GeneralistWithSpecialists:
        """A copy whose networks compute in `dtype`; a generalist of a fixed precision stays as it is."""
        generalist = self.generalist.cast(dtype) if hasattr(self.generalist, "cast") else self.generalist
        return GeneralistWithSpecialists(generalist, [each.cast(dtype) for each in self.specialists], self.active_top)

    def fingerprint(self) -> str:
        parts = [fingerprint_of(self.generalist), [each.fingerprint() for each in self.specialists], self.active_top]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def save(self, directory: Path) -> None:
        """generalist1 and so on (the networks of an ensemble), specialist1 and so on, and, last, combined.json.

        Raises ValueError where the generalist is neither an AcousticModel nor an Ensemble of such.
        """
        ensemble = self.generalist if isinstance(self.generalist, Ensemble) else None
        facts = {"mean": ensemble.mean, "weights": ensemble.weights} if ensemble else {}
        networks = []
        for model in ensemble.models if ensemble else [self.generalist]:
            if not isinstance(model, AcousticModel):
                raise ValueError(f"a {type(model).__name__} cannot be saved with its specialists")
            networks.append(model)
        for number, network in enumerate(networks, 1):
            network.save(directory / f"generalist{number}")
        for number, specialist in enumerate(self.specialists, 1):
            specialist.save(directory / f"specialist{number}")
        write_json(directory / COMBINED, {"active_top": self.active_top, "networks": len(networks),
                                          "specialists": len(self.specialists), "ensemble": facts})

    @staticmethod
    def load(directory: Path, device: torch.device) -> GeneralistWithSpecialists:
        """What `save` wrote. Raises UserError where a file is missing or damaged, or they do not belong together."""
        facts = read_json(directory / COMBINED)
        try:
            models = [AcousticModel.load(directory / f"generalist{number}", device)
                      for number in range(1, int(facts["networks"]) + 1)]
            generalist: Generalist = Ensemble(models, **facts["ensemble"]) if facts["ensemble"] else models[0]
            specialists = [Specialist.load(directory / f"specialist{number}", device)
                           for number in range(1, int(facts["specialists"]) + 1)]
            return GeneralistWithSpecialists(generalist, specialists, int(facts["active_top"]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{directory / COMBINED}: damaged ({error!r}); save the model again") from None


def _tempered(generalist: torch.Tensor, log_q: torch.Tensor, general: torch.Tensor, temperature: float) -> torch.Tensor:
    """From the generalist's log posteriors at T and at 1, and log q."""
    return torch.log_softmax(generalist + (log_q - general) / temperature, 1)


def load_combined(generalist: Generalist, directory: Path, active_top: int = 1) -> GeneralistWithSpecialists:
    """The generalist with the specialists of a directory of `SpecialistTrainings`, on the generalist's device.

    Raises UserError where specialists are missing, damaged or of other senones.
    """
    try:
        return GeneralistWithSpecialists(generalist, load_specialists(directory, generalist.device), active_top)
    except ValueError as error:
        raise UserError(f"{directory}: {error}: train the specialists of this generalist") from None
