"""Photographs in a parquet file."""

import io
import json
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from ierf.errors import IerfError
from ierf.experiments.data.coco import annotated, category_of_class
from ierf.experiments.data.photos import DataSet, Photo, box_mask, file_fingerprint
from ierf.model.loading.extras import extra


def parquet(path: Path, classes: str | None = None) -> DataSet:
    """Rows with `image` (an encoded picture), and `label` with or without `box`, or COCO's `annotations` as JSON.

    A row is named by `file_name`, else by its number. A box may be null.

    Args:
        classes: for annotations, JSON that maps the model's class indices to names of categories.
    """
    file = extra("pyarrow.parquet", "parquet").ParquetFile(path)
    columns = [c for c in ("image", "label", "box", "annotations") if c in file.schema_arrow.names]
    if "image" not in columns:
        raise IerfError(f"{str(path)!r} has no column 'image'")
    if "file_name" in file.schema_arrow.names:
        names = [str(name) for name in file.read(columns=["file_name"])["file_name"].to_pylist()]
    else:
        names = [f"{i:05d}" for i in range(file.metadata.num_rows)]
    index = {name: i for i, name in enumerate(names)}
    category_of = category_of_class(path, classes) if "annotations" in columns else {}

    starts = [0, *accumulate(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))]

    @lru_cache(maxsize=1)
    def group(number: int) -> Any:
        """Rows that the file stores together; a pass in order reads each group once."""
        return file.read_row_group(number, columns=columns)

    def read(name: str) -> Photo:
        number = bisect_right(starts, index[name]) - 1
        (row,) = group(number).slice(index[name] - starts[number], 1).to_pylist()
        image = Image.open(io.BytesIO(row["image"])).convert("RGB")
        if "annotations" in row:
            return annotated(name, image, json.loads(row["annotations"]), category_of)
        label, box = row.get("label"), row.get("box")
        objects = {} if box is None or label is None else {label: box_mask(image.size, [tuple(box)])}
        return Photo(name, image, label, objects)

    return DataSet(path.name, file_fingerprint(path), tuple(index), read)
