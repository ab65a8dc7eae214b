"""Models on the disk: what a model folder holds, and how a name becomes one, fetched from the hub where need be.

Part of the runtime: imports `audio`, `decoding` and the modules below them. The converter is imported by name when the
authors' release is made into a folder.
"""
