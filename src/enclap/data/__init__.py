"""Data sets of recordings and captions, their splits, the feature store, and scenes composed of recordings.

Data sets are in `datasets/`, one file for each kind; `tables` reads all tables of clips and captions, whose columns
`columns` knows; sound and sentences made by rule are in `synthetic/`. Only `feature_store` loads pyarrow when it is
imported, and nothing light imports it.

May import: audio, decoding, errors, files, hub, text, types.
"""
