"""Words and text to lexicon, n-gram language model, L and G."""
