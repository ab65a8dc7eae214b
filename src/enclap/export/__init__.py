"""A model folder's weights as ONNX graphs, which the default engine runs without PyTorch.

Needs the extra "train"; imports `model` and the runtime.
"""
