"""Audio and transcripts to validated lhotse manifests."""
