"""The corpus of recipe `demo`: LibriSpeech-shaped, spoken by text-to-speech voices, made from packages alone."""
