"""Training: typed recipes, one trainer for one process or many, batches, and the stages that make mini.

May import: audio, captioner, data, decoding, engines, errors, evaluation, export, files, hub, model, text, types.
"""
