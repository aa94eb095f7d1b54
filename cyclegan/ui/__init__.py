"""The Gradio page: the only part of the package that imports Gradio."""

from cyclegan.ui.page import build_demo, launch, warm_up

__all__ = ["build_demo", "launch", "warm_up"]
