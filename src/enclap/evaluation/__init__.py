"""How good captions are: metrics over predictions and references, and the calibration of scores.

A metric is one file that follows the interface in `base`. What needs more than the runtime is imported inside the
functions that need it.

May import: audio, captioner, data, decoding, engines, errors, files, hub, output, text, types.
"""
