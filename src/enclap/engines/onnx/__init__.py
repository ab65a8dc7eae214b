"""The default engine: a model folder's graphs in onnxruntime, searched by numpy.

Part of the runtime: imports `engines.base`, `engines.batching`, `hub`, `decoding` and `audio`, never PyTorch.
"""
