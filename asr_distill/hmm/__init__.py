"""Topology, flat start, tree and alignments."""
