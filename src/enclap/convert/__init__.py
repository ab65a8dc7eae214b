"""Published checkpoints made into model folders; pickles are opened for tensors alone.

Needs the extra "train"; imports `model`, `export` and the runtime.
"""
