"""A problem's pictures outside of a sampler: their keys, and what an endpoint is sent."""

from __future__ import annotations

import base64
import hashlib
import io

from PIL import Image

from vlrl.images import read_image, read_picture
from vlrl.types import ImageSource, Problem

_AS_THEY_ARE = {"PNG": "image/png", "JPEG": "image/jpeg"}


def image_keys(problem: Problem) -> tuple[str, ...]:
    """SHA-256 of each image's bytes, as in the prompts of a policy.

    Raises:
        ImageError: a file is missing.
    """
    return tuple(hashlib.sha256(read_image(source)).hexdigest() for source in problem.images)


def data_url(source: ImageSource) -> str:
    """An image for the wire: its own bytes if any server reads them alike, else as RGB in a PNG.

    Alike are PNG and JPEG pictures of 8 bits a channel without alpha, palette and rotation.

    Raises:
        ImageError: it can't be read.
    """
    _, picture = read_picture(source)
    encoded = read_image(source)
    with Image.open(io.BytesIO(encoded)) as opened:
        kind = _AS_THEY_ARE.get(opened.format or "")
        plain = opened.mode in ("RGB", "L") and not opened.getexif()
        plain = plain and "transparency" not in opened.info
    if not (kind and plain):
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        kind, encoded = "image/png", buffer.getvalue()
    return f"data:{kind};base64,{base64.b64encode(encoded).decode()}"
