"""100,000 image rows through `vlrl data build`, and read back in turn and as training reads them.

    python scripts/bench_data.py --json bench_data.json [--rows 100000] [--side 64]

The images are easy-VQA's pictures, enlarged, with noise of their own, as JPEG in a Parquet file.
Each part runs in a process of its own; `peak_mib` is the most that it and its children held at
once, imports included: proportional set sizes, sampled ten times a second. `few` is the same
part over a hundredth of the rows: what doesn't grow with them.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

CHUNK = 500
"""Rows of a row group of the source, and that a process draws at once."""
TRAINED_SHARE = 0.02
"""Of the rows, those that are decoded and sized for the model."""
PARTS = ("build", "read_in_turn", "read_as_training", "load_as_training")


def make_rows(folder: Path, num_rows: int, side: int, workers: int) -> None:
    """A Parquet file with `num_rows` different images and questions, and a recipe over it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("question", pa.string()), ("answer", pa.string()), ("image", pa.binary())])
    jobs = [(first, min(CHUNK, num_rows - first), side) for first in range(0, num_rows, CHUNK)]
    with (
        pq.ParquetWriter(folder / "rows.parquet", schema, compression="none") as writer,
        multiprocessing.get_context("spawn").Pool(workers) as pool,
    ):
        for rows in pool.imap(_draw, jobs):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    (folder / "rows.yaml").write_text(
        "name: rows\ntask: image_qa\nlicence: MIT\nfile: {}\nsplits: {train: rows.parquet}\n"
        "fields: {images: image}\n"
    )


def _draw(job: tuple[int, int, int]) -> list[dict[str, object]]:
    """Rows from a first number on; no two images are near each other."""
    import easy_vqa
    import numpy as np
    from PIL import Image

    first, num_rows, side = job
    paths = sorted(easy_vqa.get_train_image_paths().values())
    rng = np.random.default_rng(first)
    fine = rng.integers(-8, 8, (2 * side, 2 * side, 3), dtype=np.int16)
    rows: list[dict[str, object]] = []
    for index in range(first, first + num_rows):
        with Image.open(paths[index % len(paths)]) as drawn:
            pixels = np.asarray(drawn.convert("RGB").resize((side, side)), dtype=np.int16)
        coarse = Image.fromarray(rng.integers(0, 120, (8, 8, 3), dtype=np.uint8))
        blocks = np.asarray(coarse.resize((side, side), Image.Resampling.NEAREST), dtype=np.int16)
        x, y = rng.integers(0, side, 2)
        noisy = pixels + blocks - 60 + fine[x : x + side, y : y + side]
        out = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
        question = f"What shape is in picture {index}?"
        rows.append({"question": question, "answer": "circle", "image": out.getvalue()})
    return rows


def build(folder: Path, num_rows: int, workers: int) -> int:
    """`vlrl data build`: images decoded and hashed, compared with easy-VQA's test images."""
    mixture, out = folder / "mix.yaml", folder / "built"
    recipes = f"[{folder / 'rows.yaml'}]"
    mixture.write_text(
        f"name: bench\nrows: {num_rows}\ndecontaminate: {{suites: [easy_vqa]}}\n"
        f"domains: {{image_qa: {{share: 1.0, recipes: {recipes}}}}}\n"
    )
    command = [sys.executable, "-m", "vlrl", "data", "build", str(mixture), "--out", str(out)]
    subprocess.run([*command, "--workers", str(workers)], check=True, stdout=subprocess.DEVNULL)
    manifest = json.loads((out / "manifest.json").read_text())
    return manifest["domains"]["image_qa"]["recipes"]["rows"]["looked_at"]


def read_in_turn(folder: Path, num_rows: int, workers: int) -> int:
    """Rows in the order of the file, images still encoded."""
    from vlrl.recipes import open_recipe

    rows = open_recipe(str(folder / "built" / "image_qa.yaml")).rows()
    return sum(1 for row, _ in zip(rows, range(num_rows), strict=False) if row.images)


def read_as_training(folder: Path, num_rows: int, workers: int) -> int:
    """Problems in training's order, images still encoded."""
    return sum(1 for _, _ in zip(range(num_rows), _problems(folder), strict=False))


def load_as_training(folder: Path, num_rows: int, workers: int) -> int:
    """Problems in training's order, as prompts with their pixels."""
    from vlrl.chat import Chat
    from vlrl.config import BUILTIN_MODEL, ImageConfig
    from vlrl.evaluate import prompt_check
    from vlrl.models.load import load_processor

    chat = Chat(load_processor(BUILTIN_MODEL), ImageConfig())
    problems = _problems(folder, check=prompt_check(chat, 4096))
    wanted = int(num_rows * TRAINED_SHARE)
    return sum(1 for _, _ in zip(range(wanted), problems, strict=False))


def _problems(folder: Path, **options: Any) -> Iterator[object]:
    from vlrl.config import DataConfig, DomainConfig
    from vlrl.data import ProblemStream
    from vlrl.tasks import TASKS

    part = DomainConfig(share=1.0, recipes=(str(folder / "built" / "image_qa.yaml"),))
    config = DataConfig(mixture={"image_qa": part}, prompts_per_step=50)
    stream = ProblemStream(config, 0, TASKS, **options)
    while True:
        yield from stream.next_batch()


def measured(name: str, folder: Path, num_rows: int, workers: int) -> dict[str, float]:
    """Rows, seconds and memory of a part, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_run, args=(name, folder, num_rows, workers, queue))
    process.start()
    peak = 0
    while process.is_alive():
        peak = max(peak, _held(process.pid or 0))
        process.join(0.1)
    if process.exitcode:
        raise SystemExit(f"{name} failed")
    return {**queue.get(), "peak_mib": round(peak / 2**20, 1)}


def _held(pid: int) -> int:
    """Bytes that a process and its children hold: a shared page counts for each its part."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            memory: Any = process.memory_full_info()  # pss is there on Linux only
            total += getattr(memory, "pss", memory.rss)
    except psutil.Error:  # it has just ended
        pass
    return total


def _run(name: str, folder: Path, num_rows: int, workers: int, queue: Any) -> None:
    if name != "build":
        for module in ("chat", "data", "recipes"):  # imports are no part of the time
            importlib.import_module(f"vlrl.{module}")
    before = sum(os.times()[:4])  # of this process and the children that it waited for
    start = time.perf_counter()
    rows = globals()[name](folder, num_rows, workers)
    seconds, used = time.perf_counter() - start, os.times()
    queue.put(
        {
            "rows": rows,
            "seconds": round(seconds, 2),
            "cpu_s": round(sum(used[:4]) - before, 2),
            "rows_per_s": round(rows / seconds, 1),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=64, help="of each image, in pixels")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="where 1 GB fits (default: the system's)")
    options = parser.parse_args()
    parts: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make_rows(folder, options.rows, options.side, options.workers)
        size = (folder / "rows.parquet").stat().st_size
        for part in PARTS:
            few = measured(part, folder, max(options.rows // 100, 50), options.workers)
            if part == "build":
                shutil.rmtree(folder / "built")
            parts[part] = {**measured(part, folder, options.rows, options.workers), "few": few}
            print(f"{part}: {parts[part]}", flush=True)
    report = {
        "rows": options.rows,
        "side": options.side,
        "encoded_mib": round(size / 2**20, 1),
        "decoded_mib": round(options.rows * options.side**2 * 3 / 2**20, 1),
        "workers": options.workers,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_before": os.getloadavg()[0],
        **parts,
    }
    options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
