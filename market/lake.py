"""The lake: Hive-partitioned Parquet files, written atomically and queried through in-memory DuckDB views.

Writers replace whole files: a reader sees a file as it was before or as it is after, never in between, also when
the writer is killed. No DuckDB file is ever opened, so any number of processes read and write at once.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import duckdb
import pyarrow as pa
from pyarrow import dataset as arrow_dataset
from pyarrow import fs, parquet

from market.atomic_files import put_atomic
from market.datasets import DATASETS, Dataset, conform
from market.datasets import dataset as named
from market.errors import BadPath, LakeCorrupt, LakeMissing, QueryFailed
from market.folders import make_folders

# DuckDB opens a file once for its footer and once more for its rows. Readers see whole files all the same:
# an answer counts only if no file was replaced meanwhile, and after so many vain attempts the files are held open.
_OPTIMISTIC_READS = 3

Paths = list[str]
Partitions = list[dict[str, str]]

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
# DuckDB expands these in a list of files too, and offers no way to escape them.
_GLOB = re.compile(r"[*?\[\]{}]")


def _inside(path: str, within: Mapping[str, Collection[str]]) -> bool:
    """Whether every partition column of a path that is in `within` has one of its values."""
    parts = (part.partition("=") for part in path.split("/")[1:-1])
    return all(value in within[key] for key, _, value in parts if key in within)


class Lake:
    """Datasets and files below one place.

    Parameters
    ----------
    uri
        A path, `file:///…` or `s3://bucket/prefix`. Nothing need exist yet.
    datasets
        What it holds; the system's datasets unless told otherwise.
    filesystem
        Instead of the one that the address names (then `uri` is a path in it).

    Examples
    --------
    >>> import tempfile
    >>> lake = Lake(tempfile.mkdtemp())
    >>> gap = {"symbol": ["BTCUSDT"], "from": [0], "to": [60_000], "cause": ["not_fetched"]}
    >>> lake.put("gaps", pa.table(gap))
    'gaps/part-0.parquet'
    >>> lake.query('SELECT symbol, "to" - "from" AS missing FROM gaps').to_pylist()
    [{'symbol': 'BTCUSDT', 'missing': 60000}]
    >>> lake.read("klines").num_rows
    0
    """

    def __init__(
        self, uri: str, datasets: Mapping[str, Dataset] = DATASETS, filesystem: fs.FileSystem | None = None
    ) -> None:
        if filesystem is not None:
            self.filesystem, root = filesystem, uri
        elif "://" in uri:
            self.filesystem, root = fs.FileSystem.from_uri(uri)
        else:
            self.filesystem, root = fs.LocalFileSystem(), str(Path(uri).absolute())
        self.uri = uri
        self.datasets = dict(datasets)
        self._root = root.rstrip("/")
        self._local = isinstance(self.filesystem, fs.LocalFileSystem)

    # Files

    def put_bytes(self, path: str, data: bytes) -> str:
        """Write a file at a path inside the lake, atomically; returns the path."""
        put_atomic(self.filesystem, self._at(path), data)
        return path

    def get_bytes(self, path: str) -> bytes:
        """A file's content; `LakeMissing` if it is not there."""
        try:
            with self.filesystem.open_input_stream(self._at(path)) as stream:
                content: bytes = stream.read()
                return content
        except FileNotFoundError:
            raise LakeMissing(path) from None

    def exists(self, path: str) -> bool:
        """Whether there is a file at a path inside the lake."""
        return bool(self.filesystem.get_file_info(self._at(path)).type == fs.FileType.File)

    @contextmanager
    def lock(self, dataset: str, partition: Mapping[str, str]) -> Iterator[None]:
        """Alone with one partition: who else locks it, in this process or another of this machine, waits.

        For those who read a file and write it changed. Readers need no lock. A process that dies leaves none behind.
        A lake that is no folder (S3) has no locks: nothing but one process may change the same partition there.
        """
        if not self._local:
            yield
            return
        folder = Path(self._at(self._folder(named(dataset, self.datasets), partition)))
        make_folders(folder)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def table(self, path: str) -> pa.Table:
        """The rows of one Parquet file as they are inside; `LakeMissing` if it is not there."""
        with self._reading(path) as file:
            return parquet.ParquetFile(file).read()

    def list(self, prefix: str = "") -> Paths:
        """The paths of all files below a folder of the lake, sorted; unfinished files are not among them."""
        start = self._at(prefix) if prefix else self._root
        if self._local:
            found = (f"{folder}/{name}" for folder, _, names in os.walk(start) for name in names)
        else:
            selector = fs.FileSelector(start, recursive=True, allow_not_found=True)
            found = (info.path for info in self.filesystem.get_file_info(selector) if info.type == fs.FileType.File)
        paths = (path[len(self._root) + 1 :] for path in found)
        return sorted(path for path in paths if not PurePosixPath(path).name.startswith("."))

    # Datasets

    def put(
        self,
        dataset: str,
        table: pa.Table,
        partition: Mapping[str, str] = MappingProxyType({}),
        name: str = "part-0.parquet",
    ) -> str:
        """Store a table as one file of a dataset, atomically, in place of the file of that name; returns its path.

        Every partition column of the dataset needs a value; the table may repeat it. Columns are cast to the
        dataset's types, never with loss; `SchemaMismatch` says what does not fit.
        """
        target = named(dataset, self.datasets)
        folder = self._folder(target, partition)
        if not name.endswith(".parquet"):
            raise BadPath(name, "a dataset's files end in .parquet")
        path = f"{folder}/{_safe(name)}"
        sink = pa.BufferOutputStream()
        conformed = conform(target, table, partition)
        # Prices and volumes hardly repeat: a dictionary of them takes longer to make and more room than they do.
        repeating: Any = [field.name for field in conformed.schema if not pa.types.is_floating(field.type)]
        parquet.write_table(
            conformed,
            sink,
            compression="zstd",
            write_page_checksum=True,
            row_group_size=16_384,
            use_dictionary=repeating,
        )
        put_atomic(self.filesystem, self._at(path), sink.getvalue())
        return path

    def read(
        self,
        dataset: str,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        parameters: Sequence[object] = (),
        order_by: str | None = None,
        within: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> pa.Table:
        """Rows of one dataset; none, with the dataset's schema, when nothing is stored.

        `where` and `order_by` are SQL; `?` in `where` stands for the `parameters`. Conditions on partition columns
        (strings) decide which files are read. Without `order_by` the order is unspecified.

        `within` names values of partition columns: no other file is opened, not even for its footer, so the cost
        does not grow with what else the dataset holds.
        """
        target = named(dataset, self.datasets)
        chosen = "*" if columns is None else ", ".join(_quoted(column) for column in columns)
        sql = f"SELECT {chosen} FROM {target.name}"  # noqa: S608 - the name is a dataset's, the rest the caller's code
        sql += f" WHERE {where}" if where else ""
        sql += f" ORDER BY {order_by}" if order_by else ""
        return self._query(sql, parameters, within)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """The answer to one SQL statement in which every dataset is a view of its name.

        `LakeCorrupt` names a file that cannot be read, `QueryFailed` what is wrong with the statement.
        """
        return self._query(sql, parameters, {})

    def _query(self, sql: str, parameters: Sequence[object], within: Mapping[str, Collection[str]]) -> pa.Table:
        words = set(re.findall(r"\w+", sql.lower()))
        used = [each for each in self.datasets.values() if each.name in words]
        for _ in range(_OPTIMISTIC_READS):
            files = {each.name: self._files(each, within) for each in used}
            before = self._signature(files)
            try:
                table = self._answer(sql, parameters, used, files, self._scan)
            except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException) as error:
                raise QueryFailed(str(error)) from error
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                if self._signature(files) == before:
                    for each in used:
                        self.verify(each.name)
                    raise QueryFailed(str(error)) from error
                continue
            if self._signature(files) == before:
                return table
        # Writers are faster than we are: hold each file open while it is read, which no replacement disturbs.
        files = {each.name: self._files(each, within) for each in used}
        try:
            return self._answer(sql, parameters, used, files, self._pinned)
        except (duckdb.Error, pa.ArrowException) as error:
            raise QueryFailed(str(error)) from error

    def partitions(self, dataset: str) -> Partitions:
        """The partitions of a dataset that hold a file, sorted."""
        target = named(dataset, self.datasets)
        found = {tuple(part.partition("=")[2] for part in path.split("/")[1:-1]) for path in self._files(target)}
        return [dict(zip(target.partition, values, strict=True)) for values in sorted(found)]

    def files(self, dataset: str, partition: Mapping[str, str] = MappingProxyType({})) -> Paths:
        """The paths of a dataset's files, sorted; only those with the given values of partition columns."""
        return self._files(named(dataset, self.datasets), {key: (value,) for key, value in partition.items()})

    def verify(self, dataset: str) -> int:
        """Read every file of a dataset, checksums included; their count, or `LakeCorrupt` for the first that fails."""
        paths = self._files(named(dataset, self.datasets))
        for path in paths:
            with self._reading(path) as file:
                parquet.ParquetFile(file, page_checksum_verification=True).read()
        return len(paths)

    # Inside

    def _at(self, path: str) -> str:
        parts = path.split("/")
        if not path or any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
            raise BadPath(path, "a path inside the lake has no empty part and none that begins with a dot")
        return f"{self._root}/{path}"

    def _folder(self, target: Dataset, partition: Mapping[str, str]) -> str:
        """Where a dataset's files of one partition are."""
        if set(partition) != set(target.partition):
            wanted = ", ".join(target.partition) or "nothing"
            raise BadPath(str(dict(partition)), f"the partition of {target.name} is by {wanted}")
        return "/".join([target.name, *(f"{key}={_safe(partition[key])}" for key in target.partition)])

    def _files(self, target: Dataset, within: Mapping[str, Collection[str]] = MappingProxyType({})) -> Paths:
        """A dataset's files, sorted; of a partition column that is in `within`, only those of its values."""
        folders = [target.name]
        for key in target.partition:
            if key not in within:
                break
            folders = [f"{folder}/{key}={value}" for folder in folders for value in within[key]]
        depth = len(target.partition) + 2
        found = (path for folder in folders for path in self.list(folder))
        return sorted(
            path
            for path in found
            if path.endswith(".parquet") and len(path.split("/")) == depth and _inside(path, within)
        )

    def _signature(self, files: Mapping[str, Paths]) -> Any:
        """What changes when any of the files is replaced or removed."""
        paths = [self._at(path) for each in files.values() for path in each]
        if not self._local:
            return [(info.mtime_ns, info.size) for info in self.filesystem.get_file_info(paths)]
        try:
            stats = [Path(path).stat() for path in paths]
        except FileNotFoundError:
            return object()
        return [(each.st_ino, each.st_mtime_ns, each.st_size) for each in stats]

    def _answer(
        self,
        sql: str,
        parameters: Sequence[object],
        used: Sequence[Dataset],
        files: Mapping[str, Paths],
        scan: Callable[[duckdb.DuckDBPyConnection, Dataset, Paths], str],
    ) -> pa.Table:
        """Run one statement on an in-memory database with a view for each dataset in use."""
        # Nothing may be fetched from the network, and a Python variable must not pose as a dataset.
        with duckdb.connect(
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        ) as connection:
            connection.execute("SET python_enable_replacements = false")
            for each in used:
                # The empty table puts the schema's columns first, and there, whatever the files hold.
                connection.register(f"_schema_{each.name}", each.full_schema.empty_table())
                view = f"CREATE VIEW {each.name} AS SELECT * FROM _schema_{each.name}"  # noqa: S608
                if files[each.name]:
                    view += f" UNION ALL BY NAME SELECT * FROM {scan(connection, each, files[each.name])}"  # noqa: S608
                connection.execute(view)
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise QueryFailed("a query is one SELECT")
            table: pa.Table = connection.sql(sql, params=list(parameters)).to_arrow_table()
            return table

    def _scan(self, connection: duckdb.DuckDBPyConnection, target: Dataset, files: Paths) -> str:
        """SQL that reads files by name."""
        paths = [self._at(path) for path in files]
        if self._local and not any(_GLOB.search(path) for path in paths):
            listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
            options = "hive_partitioning = true, hive_types_autocast = false, union_by_name = true"
            return f"read_parquet([{listed}], {options})"
        connection.register(f"_files_{target.name}", self._arrow(target, paths))
        return f"_files_{target.name}"

    def _pinned(self, connection: duckdb.DuckDBPyConnection, target: Dataset, files: Paths) -> str:
        """SQL that reads what the files held when each was opened, once."""
        tables = []
        for path in files:
            with self._reading(path) as file:
                table = parquet.ParquetFile(file).read()
            for key, part in zip(target.partition, path.split("/")[1:-1], strict=True):
                table = table.append_column(key, pa.repeat(pa.scalar(part.partition("=")[2]), table.num_rows))
            tables.append(table)
        connection.register(f"_files_{target.name}", pa.concat_tables(tables, promote_options="permissive"))
        return f"_files_{target.name}"

    @contextmanager
    def _reading(self, path: str) -> Iterator[pa.NativeFile]:
        """A file of the lake; what cannot be read from it is `LakeCorrupt`."""
        try:
            with self.filesystem.open_input_file(self._at(path)) as file:
                yield file
        except FileNotFoundError:
            raise LakeMissing(path) from None
        except (pa.ArrowException, OSError) as error:
            raise LakeCorrupt(path, str(error)) from error

    def _arrow(self, target: Dataset, paths: Sequence[str]) -> arrow_dataset.Dataset:
        keys = pa.schema([(key, pa.string()) for key in target.partition])
        options: dict[str, Any] = {
            "filesystem": self.filesystem,
            "format": "parquet",
            "partitioning": arrow_dataset.partitioning(keys, flavor="hive"),
            "partition_base_dir": f"{self._root}/{target.name}",
        }
        first = [target.full_schema]
        if target.extra_columns:
            first += [arrow_dataset.dataset([path], **options).schema for path in paths]
        schema = pa.unify_schemas(first, promote_options="permissive")
        return arrow_dataset.dataset(list(paths), schema=schema, **options)


def _safe(part: str) -> str:
    if not _SAFE.fullmatch(part):
        raise BadPath(part, "it is to be of letters, digits and ._+-, and to begin with a letter or digit")
    return part


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
