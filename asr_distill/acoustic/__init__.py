"""Networks, targets, the trainer, the ensemble."""
