"""Encoded images -> the pixels that the model sees; decoded and processed once, by content."""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from qwen_vl_utils.vision_process import smart_resize

from vlrl.config import ConfigError, ImageConfig
from vlrl.types import ImageSource

MAX_DECODED_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded (decompression bombs)."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is decoded: pixels only. PIL would run Ghostscript on an EPS file."""
ORIENTATION = 0x0112
"""EXIF's tag; from 5 on the sides are swapped."""
CACHE_BYTES = 1 << 30
"""Processed images kept in memory; older ones are read and processed again when asked for."""
IDLE_BYTES = 64 << 20
"""Of these, what may stay of images that no step of late has used."""


class ImageError(ValueError):
    """An image that can't be used: which one, and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """One processed image.

    pixel_values: [patches, channels * temporal * patch * patch], as the processor has it.
    grid_thw: patches along time, height and width.
    num_tokens: what the image takes in the prompt, after merging.
    key: equal for equal images; by default a hash of the pixels.
    """

    pixel_values: torch.Tensor
    grid_thw: tuple[int, int, int]
    num_tokens: int
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            pixels = self.pixel_values.cpu().contiguous().view(torch.uint8).numpy().tobytes()
            key = hashlib.sha256(pixels + repr(self.grid_thw).encode()).hexdigest()
            object.__setattr__(self, "key", key)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    picture: Image.Image
    features: ImageFeatures


class ImageStore:
    """Pictures and features by content hash, with a bounded cache.

    Images that come as bytes are kept in a temporary folder, which goes with the store.

    `processor` is the Hugging Face image processor of a Qwen-VL checkpoint. The bounds in force are
    written into its `size`: a checkpoint saved with it shows its model the same pixels anywhere.
    `pixel_dtype` is the vision tower's, which would round the pixels to it anyway. With a GPU they
    lie in page-locked memory, from where a micro-batch's are copied without a stop.

    Attributes:
        num_decoded, num_processed: images decoded, and runs of the processor, so far.

    Raises:
        ConfigError: bounds of the area that leave no size.
    """

    def __init__(
        self,
        processor: Any,
        config: ImageConfig,
        cache_bytes: int = CACHE_BYTES,
        pixel_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.patch_size = int(processor.patch_size)
        self.merge_size = int(processor.merge_size)
        size = processor.size
        self.min_pixels = int(config.min_pixels or size["shortest_edge"])
        self.max_pixels = int(config.max_pixels or size["longest_edge"])
        if self.min_pixels > self.max_pixels:
            raise ConfigError(
                f"images.min_pixels={self.min_pixels} is larger than max_pixels={self.max_pixels} "
                "(what isn't set is the checkpoint's own)"
            )
        bounds = {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}
        processor.size = type(size)(**bounds)  # a dict, or what stands for one
        self.num_decoded = 0
        self.num_processed = 0
        self._processor = processor
        self._sources: dict[str, Path] = {}
        self._spilled: tempfile.TemporaryDirectory[str] | None = None
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._used: dict[str, int] = {}  # the step of an entry's last use
        self._step = 0
        self._cache_bytes = cache_bytes
        self._pixel_dtype = pixel_dtype
        self._pin = torch.cuda.is_available()
        self._lock = threading.RLock()  # a rollout may go on beside the learner

    def add(self, source: ImageSource) -> str:
        """Read, decode and process an image; its key (SHA-256 of the encoded bytes).

        Raises:
            ImageError: the file is missing, or isn't an image that can be decoded.
        """
        encoded = read_image(source)
        key = hashlib.sha256(encoded).hexdigest()
        with self._lock:
            if key not in self._entries:
                self._insert(key, self._process(encoded, _name(source), key))
            if key not in self._sources:
                file = source if isinstance(source, Path) else self._spill(key, source)
                self._sources[key] = file
        return key

    def picture(self, key: str) -> Image.Image:
        """The RGB picture at the size that the model sees: what the sampler is given."""
        return self._entry(key).picture

    def features(self, key: str) -> ImageFeatures:
        """The processed image of a key that `add` returned."""
        return self._entry(key).features

    def step_done(self, recent: int) -> None:
        """Let go of images that the last `recent` steps did not use, but for the newest of them."""
        with self._lock:
            self._step += 1
            while self._bytes > IDLE_BYTES:
                oldest = next(iter(self._entries))
                if self._used[oldest] > self._step - recent:
                    return
                self._drop_oldest()

    def _entry(self, key: str) -> _Entry:
        with self._lock:
            if key not in self._entries:
                source = self._sources[key]
                self._insert(key, self._process(read_image(source), _name(source), key))
            self._entries.move_to_end(key)
            self._used[key] = self._step
            return self._entries[key]

    def _spill(self, key: str, encoded: bytes) -> Path:
        """A file with the bytes: in memory, those of a whole data set would add up."""
        if self._spilled is None:
            self._spilled = tempfile.TemporaryDirectory(prefix="vlrl-images-")
        path = Path(self._spilled.name) / key
        path.write_bytes(encoded)
        return path

    def _insert(self, key: str, entry: _Entry) -> None:
        self._entries[key] = entry
        self._bytes += _size(entry)
        self._used[key] = self._step
        while self._bytes > self._cache_bytes and len(self._entries) > 1:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        key, dropped = self._entries.popitem(last=False)
        del self._used[key]
        self._bytes -= _size(dropped)

    def _process(self, encoded: bytes, name: str, key: str) -> _Entry:
        picture = self._resize(decode_picture(encoded, name), name)
        self.num_decoded += 1
        out = self._processor(images=[picture], do_resize=False, return_tensors="pt")
        self.num_processed += 1
        time, height, width = (int(n) for n in out["image_grid_thw"][0])
        pixels = out["pixel_values"].to(self._pixel_dtype)
        features = ImageFeatures(
            pixel_values=pixels.pin_memory() if self._pin else pixels,
            grid_thw=(time, height, width),
            num_tokens=time * height * width // self.merge_size**2,
            key=key,
        )
        return _Entry(picture=picture, features=features)

    def _resize(self, picture: Image.Image, name: str) -> Image.Image:
        """Sides become multiples of patch * merge and the area goes between min and max pixels."""
        try:
            height, width = smart_resize(
                picture.height,
                picture.width,
                factor=self.patch_size * self.merge_size,
                min_pixels=self.min_pixels,
                max_pixels=self.max_pixels,
            )
        except ValueError as error:
            raise ImageError(f"{name}: {error}") from error
        if (width, height) == picture.size:
            return picture
        return picture.resize((width, height), Image.Resampling.BICUBIC)


def read_picture(source: ImageSource) -> tuple[str, Image.Image]:
    """An image's key (SHA-256 of the encoded bytes), and its RGB picture at its own size.

    Raises:
        ImageError: the file is missing, or isn't an image that can be decoded.
    """
    encoded = read_image(source)
    return hashlib.sha256(encoded).hexdigest(), decode_picture(encoded, _name(source))


def picture_size(source: ImageSource) -> tuple[int, int]:
    """(width, height) of the upright picture; only its header is read.

    Raises:
        ImageError: the file is missing, or isn't an image.
    """
    encoded = read_image(source)
    with _named(_name(source)):
        picture = Image.open(io.BytesIO(encoded), formats=FORMATS)
        width, height = picture.size
        return (height, width) if picture.getexif().get(ORIENTATION, 1) >= 5 else (width, height)


def decode_picture(encoded: bytes, name: str) -> Image.Image:
    """The first frame, upright, in RGB; transparency is laid over white.

    Raises:
        ImageError: it isn't an image that can be decoded; `name` says which.
    """
    with _named(name):
        picture = Image.open(io.BytesIO(encoded), formats=FORMATS)
        if picture.width * picture.height > MAX_DECODED_PIXELS:
            raise ImageError(
                f"{name}: {picture.width}x{picture.height} pixels, more than {MAX_DECODED_PIXELS}"
            )
        picture.load()
        picture = ImageOps.exif_transpose(picture)
        if picture.mode == "F":
            raise ImageError(f"{name}: its pixels are fractions, whose range nobody knows")
        if picture.mode.startswith("I"):  # 16 or 32 bits: convert() would clip to 255
            deep = np.asarray(picture)
            shift = 8 if deep.max(initial=0) > 255 else 0
            return Image.fromarray((deep >> shift).clip(0, 255).astype(np.uint8)).convert("RGB")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            return Image.alpha_composite(white, picture).convert("RGB")
        return picture.convert("RGB")


@contextmanager
def _named(name: str) -> Generator[None]:
    """Whatever a decoder raises on bytes from outside becomes an ImageError that names the file."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not a readable image in a known format") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ...
        raise ImageError(f"{name}: not a readable image ({error})") from error


def read_image(source: ImageSource) -> bytes:
    """An image's encoded bytes.

    Raises:
        ImageError: the file can't be read.
    """
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise ImageError(f"{source}: {error.strerror or error}") from error


def _name(source: ImageSource) -> str:
    return str(source) if isinstance(source, Path) else f"image of {len(source)} bytes"


def _size(entry: _Entry) -> int:
    pixels = entry.features.pixel_values
    return pixels.numel() * pixels.element_size() + entry.picture.width * entry.picture.height * 3
