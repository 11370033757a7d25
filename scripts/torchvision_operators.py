"""Makes a torchvision whose compiled operators can't be loaded importable.

torchvision built for CUDA finds none of its compiled operators on a machine without CUDA, and its
import fails where it describes them. Only its image transforms, which are plain Python, are needed
here, so the operators are declared (not defined: a call says so) just before its import. Set-up
copies this file into site-packages beside a .pth file that imports it, and does so only where the
import fails; the .pth file makes it act in every process, vLLM's helpers included.
"""

import sys

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries = []  # a library's declarations live as long as it does


class _Declare:
    """An import hook that acts once, when torchvision is about to be imported."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(cls)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in _SCHEMAS:
                library.define(schema)
            _libraries.append(library)


sys.meta_path.insert(0, _Declare)
