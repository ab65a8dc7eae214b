"""Pretrained audio encoders that mini's audio tower learns from: networks and front ends, written here.

Their weights are others': read from files whose hashes are pinned, never committed or shipped.

May import: audio, convert, errors, files, hub, text.
"""
