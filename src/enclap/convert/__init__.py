"""From published checkpoints to model folders: tensors by name and shape, configurations, tokenizer, graphs.

May import: audio, errors, export, files, hub, model, text, types.
"""
