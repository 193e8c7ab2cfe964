"""Datasets in parquet, as Hugging Face ships them: a column of encoded images and one of integer labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlpspace.data import pixels
from mlpspace.data.pixels import Encoded, Rows, check_room
from mlpspace.data.training_part import TrainingPart, is_training
from mlpspace.errors import DataError

_LABEL_WORDS = ("label", "labels", "fine_label", "class", "target")


@dataclass(frozen=True, slots=True)
class Parquet:
    """The training files of one dataset, in the order of their names."""

    files: tuple[Path, ...]
    image_column: str
    label_column: str

    def open(self) -> TrainingPart:
        """Reads the labels only.

        Raises:
            DataError: a file that cannot be read, a missing label.
        """
        labels = [self._labels(file) for file in self.files]
        starts = np.cumsum([0, *map(len, labels)])

        def place(row: int) -> str:
            at = int(np.searchsorted(starts, row, side="right")) - 1
            return f"{self.files[at]}, row {row - starts[at]}"

        return TrainingPart(
            files=self.files,
            labels=np.concatenate(labels),
            images=lambda rows, resolution: pixels.decode(
                lambda start: self._encoded(rows[start:], place), len(rows), resolution
            ),
            place=place,
        )

    def _labels(self, file: Path) -> Rows:
        column = _read(file, self.label_column)
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(f'{file}, row {row}: no label in the column "{self.label_column}". Take the row out')
        return column.to_numpy().astype(np.int64)

    def _encoded(self, rows: Rows, place: Callable[[int], str]) -> Iterator[Encoded]:
        """The images of `rows`, as they are encoded; only the row groups that hold one are read."""
        start = 0
        for file in self.files:
            layout = _open(file).metadata
            for group in range(layout.num_row_groups):
                stop = start + layout.row_group(group).num_rows
                wanted = rows[slice(*np.searchsorted(rows, (start, stop)))]
                if len(wanted):
                    column = _read(file, self.image_column, group)
                    for row in wanted:
                        yield place(row), _bytes(column[int(row) - start].as_py(), self.image_column, place(row))
                start = stop


def find(path: Path, classes: int) -> Parquet | None:
    """The training files of `path`, a .parquet file or a folder with some, or with one folder that has some.

    Raises:
        DataError: only test files, or no image and label column that can be told apart.
    """
    files = _files(path)
    if not files:
        return None
    told = {file: _is_training(file) for file in files}
    training = [file for file in files if told[file]] or [file for file in files if told[file] is None]
    if not training:
        raise DataError(f"{path} holds no training set, only {_listed(files)}: a search never opens those")
    if len({file.parent for file in training}) > 1:
        folders = sorted({str(file.parent) for file in training})
        raise DataError(f"{path} holds several sets: give one of {', '.join(folders)}")
    image, label = _columns(training[0], classes)
    for file in training[1:]:
        names = _open(file).schema_arrow.names
        if image not in names or label not in names:
            raise DataError(
                f'{file} has no columns "{image}" and "{label}", which {training[0].name} has: take it away'
            )
    return Parquet(tuple(training), image, label)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted(path.glob("*.parquet")) or sorted(path.glob("*/*.parquet"))


def _is_training(file: Path) -> bool | None:
    """What the file's name tells; where it says nothing, what its folder's does."""
    told = is_training(file.name)
    return is_training(file.absolute().parent.name) if told is None else told


def _listed(files: list[Path]) -> str:
    return ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")


def _open(file: Path) -> Any:
    if not file.is_file():  # reading a pipe or a device may never end
        raise DataError(f"{file} is no file, or a link to none: take it away")
    try:
        opened = pq.ParquetFile(file)
        _ = opened.schema_arrow  # read late otherwise, and so broken late
    except Exception as error:  # a damaged head raises ArrowInvalid, OSError, UnicodeDecodeError, ...
        raise _broken(file, error) from error
    return opened


def _read(file: Path, column: str, group: int | None = None) -> Any:
    """One column as an Arrow array, of one row group or of the whole file."""
    opened = _open(file)
    groups = range(opened.metadata.num_row_groups) if group is None else [group]
    promised = sum(opened.metadata.row_group(n).num_rows for n in groups)
    check_room(_unpacked(opened.metadata, column, groups), f'{file}: the values of the column "{column}"')
    try:
        values = opened.read_row_groups(list(groups), columns=[column]).column(column).combine_chunks()
    except Exception as error:  # likewise
        raise _broken(file, error) from error
    if len(values) != promised:
        raise _broken(file, f'{len(values)} of {promised} rows in the column "{column}"')
    return values


def _unpacked(metadata: Any, column: str, groups: Iterable[int]) -> int:
    """Bytes that a column takes once it is read: of a small file perhaps very many."""
    chunks = (metadata.row_group(n).column(i) for n in groups for i in range(metadata.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)


def _broken(file: Path, error: Exception | str) -> DataError:
    return DataError(f"{file} cannot be read as parquet ({error}). It may be cut short: fetch it again")


def _bytes(value: Any, column: str, where: str) -> bytes:
    data = value.get("bytes") if isinstance(value, dict) else value
    if not data:
        raise DataError(f'{where}: no bytes in the column "{column}". Embed the image, or take the row out')
    return bytes(data)


# --- which columns ----------------------------------------------------------------------------------------------------


def _columns(file: Path, classes: int) -> tuple[str, str]:
    """The image column and the label column.

    Raises:
        DataError: none, or several with nothing to tell them apart; names them all.
    """
    schema = _open(file).schema_arrow
    images = [field.name for field in schema if _holds_images(field.type)]
    labels = [field.name for field in schema if pa.types.is_integer(field.type)]
    names = _class_names(schema)
    for likely in (
        [label for label in labels if label in names],
        [label for label in labels if len(names.get(label, ())) == classes],  # CIFAR-100: fine_label, coarse_label
        [label for label in labels if label.lower() in _LABEL_WORDS],
    ):
        kept = [label for label in labels if label in likely]
        labels = kept or labels
    for what, found in (("image column (bytes, or a struct with bytes)", images), ("integer label column", labels)):
        if len(found) != 1:
            said = f"several: {', '.join(found)}" if found else "none"
            raise DataError(
                f"{file} should have one {what} and has {said}. Its columns: "
                f"{', '.join(f'{field.name} ({field.type})' for field in schema)}. Write it with these two alone"
            )
    return images[0], labels[0]


def _holds_images(kind: Any) -> bool:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Column -> names of its classes, where Hugging Face's `datasets` noted them in the schema."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = told.get("info", {}).get("features", {})
        named = {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
        return {name: names for name, names in named.items() if isinstance(names, list)}
    except (ValueError, AttributeError, KeyError, RecursionError):
        return {}  # a note for others; ours are the types
