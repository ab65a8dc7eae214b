"""How good captions are: metrics over predictions and references, and the calibration of scores.

May import: audio, captioner, data, decoding, engines, errors, files, hub, output, text, types.
"""
