"""Log-likelihoods to words: HCLG, beam search, scoring."""
