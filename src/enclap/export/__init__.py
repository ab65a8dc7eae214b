"""From PyTorch networks to the ONNX graphs that the default engine runs, in float32 and with 8-bit products.

May import: audio, engines, errors, files, hub, model, text, types.
"""
