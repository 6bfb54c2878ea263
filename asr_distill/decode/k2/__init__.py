"""Decoding with k2: HCLG without epsilons, and batches of utterances searched on a GPU."""
