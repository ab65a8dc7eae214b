"""Sound and sentences made by rule: lexicon and grammar, composed scenes, acoustics, and tones of our own."""
