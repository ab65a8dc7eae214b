"""Sound and sentences made by rule: lexicon and grammar, composed scenes, acoustics, and tones of our own.

All of it is numpy; what is drawn depends on a seed and a number alone.
"""
