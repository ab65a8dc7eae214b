"""Gradio as the pages here use it: all that a page needs is served from here, no other host is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr

__all__ = ["gr", "mount_page"]

HERE = Path(__file__).parent


def mount_page(app: FastAPI, blocks: Any, path: str, css: str, script: str, **options: Any) -> Starlette:
    """The application with the page below `path`, with the player's style and script, and some of the page's own."""
    mounted: Starlette = gr.mount_gradio_app(
        app,
        blocks,
        path=path,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=gr.themes.Default(
            primary_hue="teal", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["ui-monospace"]
        ),
        css=(HERE / "page.css").read_text(encoding="utf-8") + css,
        head=f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}{script}</script>",
        footer_links=[],
        **options,
    )
    return mounted
