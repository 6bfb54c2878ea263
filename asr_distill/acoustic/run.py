"""One training run: updates, held-out evaluations, checkpoints. The loop that drives it is in trainer.py.

Of several processes each goes through its part of every batch (`peers`); gradients, batch statistics, losses and
held-out scores are summed, so that all hold the same weights and numbers and come to the same decisions. The first one
alone writes files.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from asr_distill.acoustic.augment import shift_images, spec_augment, warp_frequencies
from asr_distill.acoustic.average import WeightAverage
from asr_distill.acoustic.base import Float32Norm, Network
from asr_distill.acoustic.checkpoint import TrainerState, save_state, write_tensors
from asr_distill.acoustic.config import TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.dropout import Dropout
from asr_distill.acoustic.heldout import heldout_scores
from asr_distill.acoustic.optimizer import MasterOptimizer, limit_norms
from asr_distill.acoustic.precision import choose_precision
from asr_distill.acoustic.sampling import Batch, Part, sampler_for
from asr_distill.acoustic.schedule import learning_rate, newbob_scale
from asr_distill.acoustic.spliced import SplicedLinear, semi_orthogonalise
from asr_distill.acoustic.targets import Targets
from asr_distill.errors import UserError
from asr_distill.features.fbank import FbankConfig, mel_centres
from asr_distill.files import write_json
from asr_distill.parallel.peers import ALONE, Peers

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Updates between two looks at loss and accuracy: a look makes a GPU wait.
LOOK_UPDATES = 20
# Updates between two steps towards semi-orthogonal factors (Povey et al. 2018).
CONSTRAINT_UPDATES = 4


class TrainingRun:
    """A run in the middle of its work; `state` and the tensors of `save` are all that it consists of."""

    def __init__(self, network: Network, data: TrainingData, targets: Targets, config: TrainerConfig,
                 state: TrainerState, seed: int, identity: str, work: Path, device: torch.device, label: str,
                 peers: Peers = ALONE):
        self.network, self.data, self.targets, self.config = network, data, targets, config
        self.state, self.seed, self.identity, self.work = state, seed, identity, work
        self.device, self.label, self.peers = device, label, peers
        self.dtype = choose_precision(state.precision, device).dtype  # type: ignore[arg-type]
        self.optimizer = MasterOptimizer(network, config, self.dtype)
        self.sampler = sampler_for(network, data, config.batch, config.chunk, self.dtype, seed)
        parts = peers.size * config.accumulate
        if self.sampler.samples < parts:
            raise UserError(f"{label}: a batch of {self.sampler.samples} samples cannot be shared out into {parts} "
                            f"parts ({peers.size} processes, trainer.accumulate={config.accumulate}): raise "
                            "trainer.batch, or take fewer")
        self.batch, self.epoch_updates = self.sampler.frames, self.sampler.epoch_updates
        self.total = config.max_updates or config.epochs * self.epoch_updates
        self.evaluate_updates = config.evaluate_updates or self.epoch_updates
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.average = WeightAverage(network, self.optimizer, config.average) if config.average else None
        self.augment = bool(config.augment.time_masks or config.augment.mel_masks)
        if config.augment.mel_masks and data.stream != "raw":
            raise UserError(f"{label}: augment.mel_masks needs log-mel features, not the {data.stream} ones: "
                            "set it to 0")
        self.centres = _centres(data, label) if config.augment.mel_warp else None
        if config.augment.shift and data.image is None:
            raise UserError(f"{label}: augment.shift is for images, not for frames: set it to 0")
        self.affine: list[torch.Tensor] = [  # what max_norm holds for
            module.weight for module in network.modules()
            if isinstance(module, (nn.Linear, nn.Conv2d, SplicedLinear))]
        self.semi_orthogonal = list(network.semi_orthogonal())
        self.dropouts = [module for module in network.modules() if isinstance(module, Dropout) and module.p > 0]
        self.norms = [module for module in network.modules() if isinstance(module, Float32Norm)]
        for norm in self.norms:
            norm.peers = peers
        self.accuracy = math.nan  # of the last batch looked at
        self.loss = math.nan
        self.saved_at = time.monotonic()
        self.board = _tensorboard(work, state.update) if config.tensorboard and peers.chief else None
        network.train()

    @property
    def finished(self) -> bool:
        return self.state.stopped or self.state.update >= self.total

    def advance(self) -> None:
        """One update, and the evaluation and checkpoint that are due after it."""
        started = time.perf_counter()
        self._update()
        state = self.state
        due = state.update % self.evaluate_updates == 0 or state.update == self.total
        if due or state.update % LOOK_UPDATES == 0:
            self._check_loss()
        state.seconds += time.perf_counter() - started
        if due:
            self._evaluate()
        if self.peers.chief and (
                self.finished or time.monotonic() - self.saved_at >= self.config.checkpoint_seconds
                or (self.config.checkpoint_updates and state.update % self.config.checkpoint_updates == 0)):
            self.save()

    def note(self) -> str:
        """What the progress line says beside frames/s and the time left."""
        text = f"update {self.state.update}/{self.total}, loss {self.loss:.3f}, accuracy {100 * self.accuracy:.1f} %"
        best = self.state.best_accuracy
        return f"{text}, held-out best {100 * best:.1f} %" if best > 0 else text

    def save(self) -> None:
        """Write the checkpoint; a loss that is no number never gets into one."""
        self.state.loss_sum = self._check_loss()
        tensors = self.optimizer.state() | {f"buffer.{name}": value for name, value in self.network.named_buffers()}
        if self.average:
            tensors |= self.average.tensors
        save_state(self.work / "checkpoint.safetensors", self.state, tensors, self.identity)
        self.saved_at = time.monotonic()
        self.peers.note(self.label, self.state.update)

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        self.optimizer.load_state(tensors)
        with torch.no_grad():
            for name, value in self.network.named_buffers():
                value.copy_(tensors[f"buffer.{name}"])
        if self.average:
            self.average.load(tensors)
        self.loss_sum.fill_(self.state.loss_sum)

    def close(self) -> None:
        """The network knows of no batch any more."""
        for norm in self.norms:
            norm.peers = ALONE
        for layer in self.dropouts:
            layer.stand(None)
        if self.board:
            self.board.close()

    def _update(self) -> None:
        state, pieces = self.state, self.config.accumulate
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        for piece in range(pieces):
            loss += self._backward(Part(self.peers.rank * pieces + piece, self.peers.size * pieces))
            gradients = self.optimizer.collect()
        self.peers.sum_(*gradients, loss)
        self.optimizer.step(self._rate())
        if self.semi_orthogonal and state.update % CONSTRAINT_UPDATES == 0:
            self.optimizer.constrain(self.semi_orthogonal, semi_orthogonalise)
        if self.config.max_norm:
            self.optimizer.constrain(self.affine, self._limit_norms)
        self.loss_sum += loss
        state.update += 1
        if self.average:
            self.average.step(state.update)
        state.loss_updates += 1
        if _looked_at(state.update):
            self.loss = float(loss)

    def _backward(self, part: Part) -> torch.Tensor:
        """Gradients of a part of the batch, and what it adds to the mean loss of the whole: ()."""
        batch = self.sampler.batch(self.state.update, part)
        place, count = batch.place, len(batch.frames)
        if self.dropouts:  # each part draws what the whole batch would
            torch.manual_seed(int(np.random.SeedSequence((self.seed, 1, self.state.update)).generate_state(1)[0]))
            for layer in self.dropouts:
                layer.stand(place if part.count > 1 else None)
        logits = self.network(self._augmented(batch), batch.rows)  # (frames, pdfs)
        # without a frame that counts the network is gone through all the same: others wait for its batch statistics
        loss = self.targets.loss(logits, batch.frames) if count else logits.float().sum()
        if count < place.rows:
            loss = loss * (count / place.rows)
        loss.backward()
        if count and _looked_at(self.state.update + 1):
            self.accuracy = float((logits.argmax(1) == self.data.pdf_ids[batch.frames]).float().mean())
        return loss.detach()

    def _augmented(self, batch: Batch) -> torch.Tensor:
        """Its windows (samples, frames, coefficients), as this update is to see them."""
        config, update, windows = self.config.augment, self.state.update, batch.windows
        if self.centres is not None:
            windows = warp_frequencies(windows, config.mel_warp, self.centres,
                                       np.random.default_rng((self.seed, 4, update)), batch.place)
        if self.augment:
            windows = spec_augment(windows, config, np.random.default_rng((self.seed, 2, update)), batch.place)
        if config.shift and self.data.image:
            images = windows.view(-1, *self.data.image)
            random = np.random.default_rng((self.seed, 3, update))
            windows = shift_images(images, config.shift, random, batch.place).view_as(windows)
        return windows

    def _limit_norms(self, weight: torch.Tensor) -> None:
        """Units are the last but one dimension of matrices by offset (SplicedLinear), else the first."""
        limit_norms(weight, self.config.max_norm, axis=1 if weight.ndim == 3 else 0)

    def _rate(self) -> float:
        return learning_rate(self.config, self.state.update, self.total, self.state.newbob_scale)

    def _check_loss(self) -> float:
        """The loss summed since the last evaluation. Raises UserError where it is no finite number."""
        total = float(self.loss_sum)
        if not math.isfinite(total):
            raise UserError(f"{self.label}: the loss is {total} at update {self.state.update}: lower learning_rate "
                            f"(now {self.config.learning_rate:g}), lengthen warmup_updates or set gradient_clip")
        return total

    def _evaluate(self) -> None:
        self.optimizer.follow(self.peers)
        with self.average.applied() if self.average else contextlib.nullcontext():
            self._evaluate_weights()

    def _evaluate_weights(self) -> None:
        state = self.state
        accuracy, cross_entropy = heldout_scores(self.network, self.data, self.sampler, self.peers)
        entry: dict[str, Any] = {
            "update": state.update, "epoch": state.update / self.epoch_updates,
            "learning_rate": learning_rate(self.config, state.update - 1, self.total, state.newbob_scale),
            "train_loss": self._check_loss() / max(1, state.loss_updates),
            "heldout_accuracy": accuracy, "heldout_cross_entropy": cross_entropy,
            "seconds": round(state.seconds, 3),
        }
        state.history.append(entry)
        self.loss_sum.zero_()
        state.loss_updates = 0
        if accuracy is None or accuracy > state.best_accuracy:
            state.best_accuracy = -1.0 if accuracy is None else accuracy
            state.best_update, state.since_best = state.update, 0
            if self.peers.chief:
                self._write_best(entry)
        else:
            state.since_best += 1
        if accuracy is not None:
            state.newbob_scale = newbob_scale(self.config, state.newbob_scale, accuracy - state.last_accuracy)
            state.last_accuracy = accuracy
        state.stopped = bool(self.config.patience) and state.since_best >= self.config.patience
        if self.peers.chief:
            write_json(self.work / "history.json", state.history)
        if self.board:
            for name, value in entry.items():
                if value is not None and name != "update":
                    self.board.add_scalar(name, value, state.update)
            self.board.flush()

    def _write_best(self, entry: dict[str, Any]) -> None:
        tensors = dict(self.network.named_buffers())
        for (name, _), weights in zip(self.network.named_parameters(), self.optimizer.master_weights(), strict=True):
            tensors[name] = weights
        write_tensors(self.work / "best.safetensors", tensors, entry)


def _centres(data: TrainingData, label: str) -> np.ndarray:
    """The middle frequencies of the coefficients' bands in Hz. Raises UserError where they are no log-mel bands."""
    fbank = FbankConfig(**data.fbank) if data.stream == "raw" and data.fbank else None
    if fbank is None or fbank.num_mel_bins != data.num_coefficients:
        raise UserError(f"{label}: augment.mel_warp needs log-mel features, not the {data.stream} ones: set it to 0")
    return mel_centres(fbank)


def _looked_at(update: int) -> bool:
    """Whether the progress line is to tell this update's loss and accuracy."""
    return update % LOOK_UPDATES == 0 or update == 1


def _tensorboard(work: Path, update: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("tensorboard is not installed: pip install tensorboard, or set tensorboard to false") from None
    return SummaryWriter(str(work / "tensorboard"), purge_step=update + 1 if update else None)
