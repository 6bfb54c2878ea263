"""The samples of one utterance, read from disk and checked against the manifest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import lhotse
import numpy as np
import soundfile

from asr_distill.errors import UserError
from asr_distill.features.speed import perturbed_name, perturbed_samples


@dataclass(frozen=True)
class Clip:
    """Where an utterance's samples lie. `cut` is kept only where lhotse itself must make them."""

    id: str
    speaker: str
    text: str
    path: str
    sample_rate: int
    channel: int
    start: int  # first sample within the recording
    num_samples: int
    recording_samples: int
    cut: lhotse.MonoCut | None = None
    speed: float = field(default=1.0, repr=False)  # factor of the perturbation that follows the reading

    @property
    def played_samples(self) -> int:
        """Length at the clip's speed."""
        return self.num_samples if self.speed == 1 else perturbed_samples(self.num_samples, self.speed)

    @property
    def seconds(self) -> float:
        """Duration at the clip's speed."""
        return self.played_samples / self.sample_rate

    def at_speed(self, factor: float) -> Clip:
        """The same samples as another utterance of another speaker (another voice, with its own statistics)."""
        return dataclasses.replace(self, id=perturbed_name(self.id, factor),
                                   speaker=perturbed_name(self.speaker, factor), speed=factor)


def clip_of(cut: lhotse.MonoCut, sample_rate: int) -> Clip:
    """Raises UserError for a cut without a recording, without exactly one supervision, or at another rate."""
    recording = getattr(cut, "recording", None)
    if not isinstance(cut, lhotse.MonoCut) or recording is None:
        raise UserError(f"cut {cut.id}: needs a recording of its own (a lhotse MonoCut); prepare the corpus again")
    if len(cut.supervisions) != 1:
        raise UserError(f"cut {cut.id}: {len(cut.supervisions)} supervisions, expected one utterance a cut; "
                        "use cuts.trim_to_supervisions()")
    if cut.sampling_rate != sample_rate:
        raise UserError(f"cut {cut.id}: {cut.sampling_rate} Hz, but the features are set to {sample_rate} Hz; "
                        "change sample_rate or resample the corpus")
    supervision, source = cut.supervisions[0], recording.sources[0]
    plain = len(recording.sources) == 1 and source.type == "file" and not recording.transforms
    return Clip(id=cut.id, speaker=supervision.speaker or cut.id, text=supervision.text or "",
                path=str(source.source) if source.type == "file" else recording.id, sample_rate=sample_rate,
                channel=cut.channel, start=round(cut.start * sample_rate), num_samples=cut.num_samples,
                recording_samples=recording.num_samples, cut=None if plain else cut)


def read_samples(clip: Clip) -> np.ndarray:
    """float32 (num_samples,) in [-1, 1], at the recording's own speed. Raises UserError, naming the file, where it is
    missing, truncated, damaged, or not the one that the manifest was made from."""
    mend = "copy it again, then run the same command"
    if clip.cut is not None:
        samples = np.asarray(clip.cut.load_audio(), np.float32)[0]
    else:
        try:
            # the reading releases Python's lock, so several threads decode at once
            with soundfile.SoundFile(clip.path) as file:
                if file.samplerate != clip.sample_rate or file.frames != clip.recording_samples:
                    raise UserError(f"{clip.path}: {file.frames} samples at {file.samplerate} Hz, the manifest says "
                                    f"{clip.recording_samples} at {clip.sample_rate} Hz (truncated or replaced?); "
                                    "copy it again or prepare the corpus again")
                if clip.start:
                    file.seek(clip.start)
                samples = file.read(clip.num_samples, dtype="float32")  # (samples,) or (samples, channels)
        except soundfile.LibsndfileError as error:
            if not Path(clip.path).exists():
                raise UserError(f"{clip.path}: no such audio file; {mend}") from None
            raise UserError(f"{clip.path}: truncated or damaged ({error.error_string.strip()}); {mend}") from None
        if samples.ndim == 2:
            samples = np.ascontiguousarray(samples[:, clip.channel])
    if len(samples) != clip.num_samples:
        raise UserError(f"{clip.path}: truncated, {len(samples)} of {clip.num_samples} samples could be read; {mend}")
    return samples
