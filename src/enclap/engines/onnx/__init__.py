"""The default engine: exported graphs in onnxruntime, without PyTorch; its sessions, codec, decoder and threads."""
