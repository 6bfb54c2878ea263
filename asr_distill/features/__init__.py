"""Waveforms to log-mel frames, batched on the device; CMVN; the frame store."""
