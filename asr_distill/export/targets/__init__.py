"""Targets of `asr-distill export`: one file each, found by being here."""
