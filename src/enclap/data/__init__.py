"""Data sets of recordings and captions, their splits, the feature store, and scenes composed of recordings.

May import: audio, decoding, errors, files, text, types.
"""
