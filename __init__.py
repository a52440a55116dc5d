"""ContextGen for ComfyUI: several subjects in one picture, each in the box you draw."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
