"""Sentences from the encoder's output on an accelerator: fused decoder steps over caches that are made once, a beam
search whose state stays on the device, and steps recorded as CUDA graphs.

May import: decoding, model.
"""
