"""Captions over HTTP, on a page and as a tool for agents, all from one loaded model; `enclap serve`, `enclap mcp`.

model_worker batches the windows of all requests; http, openai, jobs, page and mcp are its front doors; gate guards
them. Needs the extra `serve`.

May import: audio, captioner, decoding, engines, errors, files, hub, output, search, text, types.
"""
