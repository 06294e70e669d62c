"""Tables: what becomes of every sort of column, and what each error says and where."""

from __future__ import annotations

import bz2
import csv
import datetime as dt
import gzip
import io
import json
import lzma
import random
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.base.errors import UserError
from sonde.contracts.records import Records
from sonde.data.sources import _csv
from sonde.data.sources.table import Table, TableConfig


def read(path: Path, content: str | bytes | None = None, config: TableConfig | None = None) -> Records:
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Table.read(path, config or TableConfig())


def column(tmp_path: Path, *values: str) -> np.ndarray:
    return read(tmp_path / "one.csv", "x,y\n" + "".join(f"{value},1\n" for value in values)).fields["x"]


def fails(path: Path, content: str | bytes | None = None, config: TableConfig | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read(path, content, config)
    return str(caught.value).replace(str(path.parent), "DIR").replace(str(path), "PATH")


def test_types_of_columns(tmp_path: Path) -> None:
    for values, expected in [
        (["1", "-2", " 3 "], np.array([1, -2, 3])),
        (["1", "", "3"], np.array([1, np.nan, 3])),
        (["1.5", "NA", "?", "1e3"], np.array([1.5, np.nan, np.nan, 1000])),
        (["2024-05-31", "", "2024-06-01"], np.array(["2024-05-31", "NaT", "2024-06-01"], dtype="datetime64[us]")),
        (["2024-05-31 14:00", "2024-06-01 0:30"], np.array(["2024-05-31T14:00", "2024-06-01T00:30"], "datetime64[us]")),
        (["2024-05-31T14:00:00.25Z"], np.array(["2024-05-31T14:00:00.25"], "datetime64[us]")),
        (["31/05/2024", "01/06/2024"], np.array(["2024-05-31", "2024-06-01"], dtype="datetime64[us]")),
        (["1949-01", "1949-02"], np.array(["1949-01-01", "1949-02-01"], dtype="datetime64[us]")),
    ]:
        found = column(tmp_path, *values)
        assert found.dtype == expected.dtype, values
        np.testing.assert_array_equal(found, expected)


def test_what_stays_text_or_truth(tmp_path: Path) -> None:
    for values, expected in [
        (["007", "123"], ["007", "123"]),  # a code, not a number
        (["NA", "b", ""], ["NA", "b", None]),
        (["1", "two"], ["1", "two"]),
        (["NA", "?"], ["NA", "?"]),
        (["", ""], [None, None]),
        (["TRUE", "false", ""], [True, False, None]),
        (["01/02/2024", "02/03/2024"], ["01/02/2024", "02/03/2024"]),  # whose day is which is not known
        (["2024-13-45", "2024-01-01"], ["2024-13-45", "2024-01-01"]),
        (['"a, ""b"""', '"two\nlines"'], ['a, "b"', "two\nlines"]),
    ]:
        found = column(tmp_path, *values)
        assert found.dtype == object
        assert found.tolist() == expected


def test_numbers_are_exact(tmp_path: Path) -> None:
    source = random.Random(0)
    values = [source.uniform(-1, 1) * 10 ** source.randint(-300, 300) for _ in range(2000)]
    assert column(tmp_path, *map(repr, values)).tolist() == values
    lines = "".join(json.dumps({"x": value}) + "\n" for value in values)
    assert read(tmp_path / "a.jsonl", lines).fields["x"].tolist() == values


def test_a_decimal_comma_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    content = "x;label\n1,5;a\n-2;b\n3,25;a,b\n"
    path.write_text(content)
    options = Table.guess(path, "label").data
    assert options["decimal"] == ","
    found = read(path, config=TableConfig(decimal=","))
    assert found.fields["x"].tolist() == [1.5, -2, 3.25]
    assert found.fields["label"].tolist() == ["a", "b", "a,b"]
    path.write_text("x;label\n1.5;a\n2;b\n3.25;a,b\n")
    assert "decimal" not in Table.guess(path, "label").data


def test_the_separator_that_every_line_has(tmp_path: Path) -> None:
    rows = [f"{'ab'[index % 2]}\tWell, well, well {', and' * (index % 3)}" for index in range(9)]
    found = read(tmp_path / "a.csv", "\n".join(rows), TableConfig(header=False))
    assert list(found.fields) == ["column_1", "column_2"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "Straße;Größe\nschön;1,5\nÄhre;2\n"
    content = text.encode(encoding)
    content = b"\xfe\xff" + content if encoding == "utf-16-be" else content
    for name in ("a.csv", "a.csv.gz"):
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        found = read(tmp_path / name, config=TableConfig(decimal=","))
        assert found.fields["Straße"].tolist() == ["schön", "Ähre"]
        assert found.fields["Größe"].tolist() == [1.5, 2.0]


def test_an_encoding_that_is_not_certain_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    content = "x,y\nžluťoučký,1\n".encode("cp1250")
    assert fails(path, content) == (
        "DIR/a.csv line 2 is not UTF-8: byte 0x9e at offset 4. Expected text in UTF-8, or one that is certainly "
        'Western European. hint: data.encoding says what it is: "cp1252" (Western Europe), "cp1250" (Central Europe), '
        '"cp1251" (Cyrillic), "gb18030", "shift_jis", ...'
    )
    assert read(path, content, TableConfig(encoding="cp1250")).fields["x"].tolist() == ["žluťoučký"]
    assert fails(path, content, TableConfig(encoding="cp9999")).startswith(
        "data.encoding: there is no encoding 'cp9999'. Expected utf-8"
    )
    assert "is not ASCII: byte 0x9e" in fails(path, content, TableConfig(encoding="ascii"))


def test_like_the_csv_module(tmp_path: Path) -> None:
    source = random.Random(1)
    words = ["", "a", 'say "no"', "x,y", "line\nbreak", "\r\n", "é", " b ", '"', "café; naïve"]
    rows = [[source.choice(words) + "t" for _ in range(4)] for _ in range(200)]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["a", "b", "c", "d"], *rows])
    found = read(tmp_path / "a.csv", text.getvalue())
    assert [list(record.values()) for record in found] == rows
    assert found.ids[:2] == ["row 1", "row 2"]


def test_separators_marks_and_blank_lines(tmp_path: Path) -> None:
    for content in ("a;b\n1;2,5\n", "a\tb\n1\t2,5\n", "\ufeffa|b\r\n\r\n1|2,5\r\n\r\n"):
        found = read(tmp_path / "a.csv", content)
        assert (list(found.fields), len(found)) == (["a", "b"], 1)
        assert found.fields["b"].tolist() == ["2,5"]
    found = read(tmp_path / "a.csv", " a ,,c\n1,2,3\n")
    assert list(found.fields) == ["a", "column_2", "c"]
    found = read(tmp_path / "a.csv", "a^b\n1^2\n", TableConfig(separator="^"))
    assert found.fields["b"].tolist() == [2]


def test_no_header_and_no_quoting(tmp_path: Path) -> None:
    config = TableConfig(header=False, quoting=False, columns=["label", "text"])
    found = read(tmp_path / "sms.tsv", 'ham\the said "go\nspam\t"win\n', config)
    assert found.fields["text"].tolist() == ['he said "go', '"win']
    found = read(tmp_path / "sms.tsv", "1\t2\n", TableConfig(header=False))
    assert list(found.fields) == ["column_1", "column_2"]


def test_jsonl(tmp_path: Path) -> None:
    lines = [
        {"n": 1, "x": 1, "tags": ["a"], "day": "2024-05-31", "yes": True, "who": "a"},
        {"n": 2, "x": 0.5, "tags": [], "day": "2024-06-01", "yes": False},
    ]
    found = read(tmp_path / "a.jsonl", "".join(json.dumps(line) + "\n\n" for line in lines))
    assert found.fields["n"].dtype == np.int64
    assert found.fields["x"].tolist() == [1.0, 0.5]
    assert found.fields["tags"].tolist() == [["a"], []]
    assert found.fields["day"].dtype == np.dtype("datetime64[us]")
    assert found.fields["who"].tolist() == ["a", None]
    # Without lists polars reads them; the fields are the same.
    plain = [{name: value for name, value in line.items() if name != "tags"} for line in lines]
    again = read(tmp_path / "b.ndjson", "".join(json.dumps(line) + "\n" for line in plain))
    for name, values in again.fields.items():
        assert values.dtype == found.fields[name].dtype
        assert values.tolist() == found.fields[name].tolist()
    assert read(tmp_path / "c.jsonl", f'{{"id": {2**70}}}\n').fields["id"].tolist() == [str(2**70)]


def test_parquet(tmp_path: Path) -> None:
    frame = polars.DataFrame(
        {
            "small": polars.Series([1, None, 3], dtype=polars.Int16),
            "text": ["a", None, "c"],
            "kind": polars.Series(["u", "v", "u"], dtype=polars.Categorical),
            "when": polars.Series([0, 1, None], dtype=polars.Datetime("ms", "Europe/Berlin")),
            "price": polars.Series(["1.5", "2", None]).cast(polars.Decimal(10, 2)),
            "many": [[1, 2], [], None],
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    fields = read(tmp_path / "a.parquet").fields
    np.testing.assert_array_equal(fields["small"], [1, np.nan, 3])
    np.testing.assert_array_equal(fields["price"], [1.5, 2, np.nan])
    assert fields["text"].tolist() == ["a", None, "c"]
    assert fields["kind"].tolist() == ["u", "v", "u"]
    assert fields["many"].tolist() == [[1, 2], [], None]
    assert fields["when"][1] == np.datetime64("1970-01-01T00:00:00.001", "us")


def test_folder_of_splits(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "classes.txt").write_text("names")
    (tmp_path / "test.csv").write_text("b,a\n1,x\n")
    (tmp_path / "train.csv").write_text("a,b\n2,1\n3,1\n")
    (tmp_path / "dev.csv").write_text("a,b\n4,1\n")
    found = read(tmp_path)
    assert found.ids == ["train.csv row 1", "train.csv row 2", "dev.csv row 1", "test.csv row 1"]
    assert found.fields["split"].tolist() == ["train", "train", "validation", "test"]
    # Types are those of the whole column, so that no file is read otherwise than another.
    assert found.fields["a"].tolist() == ["2", "3", "4", "x"]


def test_folder_of_jsonl_and_parquet(tmp_path: Path) -> None:
    for suffix in ("jsonl", "parquet"):
        folder = tmp_path / suffix
        folder.mkdir()
        for name, value in (("train", 1), ("test", 2.5)):
            frame = polars.DataFrame({"x": [value]})
            frame.write_ndjson(folder / f"{name}.jsonl") if suffix == "jsonl" else frame.write_parquet(
                folder / f"{name}-00000-of-00001.parquet"
            )
        found = read(folder)
        assert found.fields["x"].tolist() == [1.0, 2.5]
        assert found.fields["split"].tolist() == ["train", "test"]


def test_errors_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert fails(tmp_path / "no.csv") == "the table DIR/no.csv does not exist."
    assert fails(path, "") == "DIR/a.csv is empty. Expected a header and rows."
    assert fails(path, " \n\n") == "DIR/a.csv is empty. Expected a header and rows."
    assert fails(path, "a,b\n") == (
        "DIR/a.csv has a header and no rows. hint: if its first row is data: header = false"
    )
    assert fails(path, "a,b\n1,2\n\n1,2,3\n") == (
        "DIR/a.csv line 4 has 3 values, where there are 2 columns. Expected the columns a, b. "
        "hint: a value that holds the separator ',' stands in double quotes; or skip such rows with "
        'data.ragged = "skip"'
    )
    assert "DIR/a.csv line 5 has 1 value, where" in fails(path, 'a,b\n"1\n\n",2\n1\n')
    assert fails(path, "a,b,a\n1,2,3\n") == (
        "DIR/a.csv has two columns named 'a'. Expected a header with different names. "
        "hint: if its first row is data: header = false"
    )
    assert fails(path, 'a,b\n1,2\n1,5" pipe\n') == (
        "DIR/a.csv line 3 has a double quote that stands inside a value. Expected quotes around whole values, "
        "doubled within them. hint: quoting = false in [data] takes quotes as any other character"
    )
    assert "line 2 has a double quote that is never closed." in fails(path, 'a,b\n1,"2\n3,4\n')
    config = TableConfig(header=False, columns=["a"])
    assert fails(path, "1,2\n", config) == "DIR/a.csv has 2 columns, and data.columns names 1."
    config = TableConfig(header=False, columns=["a", "a"])
    assert fails(path, "1,2\n", config) == (
        "DIR/a.csv has two columns named 'a'. Expected different names in data.columns."
    )


def test_errors_of_jsonl_and_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert fails(path, '{"a": 1}\n\n{"a": 1,}\n') == (
        "DIR/a.jsonl:3 is not JSON: Expecting property name enclosed in double quotes at character 9. "
        "Expected one JSON object a line."
    )
    assert fails(path, '{"a": 1}\n[1, 2]\n') == (
        'DIR/a.jsonl:2 is JSON, but not an object: [1, 2]. Expected a line such as {"text": "...", "label": 1}, '
        "or one list of such objects in a .json file."
    )
    assert "line 2 is not UTF-8: byte 0xff" in fails(path, b'{"a": 1}\n{"a": "\xff"}\n')
    assert "DIR/a.jsonl is empty." in fails(path, "\n")
    assert fails(tmp_path / "a.parquet", b"PAR1 no").startswith("DIR/a.parquet is not a readable Parquet file: ")
    polars.DataFrame({"a": []}).write_parquet(tmp_path / "b.parquet")
    assert fails(tmp_path / "b.parquet") == "DIR/b.parquet has no rows."
    assert "DIR/a.npy is not a table of a known format: .npy." in fails(tmp_path / "a.npy", b"")


def test_errors_of_folders(tmp_path: Path) -> None:
    empty, several, unlike = tmp_path / "empty", tmp_path / "several", tmp_path / "unlike"
    for folder in (empty, several, unlike):
        folder.mkdir()
    assert fails(empty) == (
        "the folder DIR/empty has 0 tables. Expected one table, or one each for train, validation and test."
    )
    for name in ("edges", "nodes"):
        (several / f"{name}.csv").write_text("a\n1\n")
    assert fails(several) == (
        "the folder DIR/several has 2 tables: edges.csv, nodes.csv. Expected one table, or one each for train, "
        "validation and test. hint: name one of them: DIR/several/edges.csv"
    )
    assert not Table.recognise(several)
    (unlike / "train.csv").write_text("id,label\n1,2\n")
    (unlike / "test.csv").write_text("id\n1\n")
    assert fails(unlike) == (
        "DIR/unlike/test.csv has no column 'label', which train.csv has. Expected the same columns in all files of a "
        "folder. hint: data.source = 'DIR/unlike/train.csv' takes that file alone"
    )
    (unlike / "test.csv").write_text("id,Label\n1,2\n")
    assert "hint: did you mean 'Label'?" in fails(unlike)
    (unlike / "test.csv").write_text("id,label,more\n1,2,3\n")
    assert "test.csv has a column 'more', which no train.csv knows." in fails(unlike)
    (unlike / "test.csv").unlink()
    polars.DataFrame({"id": [1], "label": [2]}).write_parquet(unlike / "test.parquet")
    assert "is not a table of a known format: .csv, .parquet. Expected files of one kind" in fails(unlike)


@pytest.mark.parametrize(
    ("name", "count"),
    [("california_housing", 20640), ("titanic", 891), ("fsdd_4speakers", 1000), ("openmoji_captions", 2339)],
)
def test_real_tables(shared: Path, name: str, count: int) -> None:
    found = read(shared / name)
    assert len(found) == count
    assert len(set(found.ids)) == count


def test_real_messages(shared: Path) -> None:
    config = TableConfig(header=False, quoting=False, columns=["label", "text"])
    found = read(shared / "sms_spam", config=config)
    labels, counts = np.unique(found.fields["label"].astype(str), return_counts=True)
    assert dict(zip(labels, counts, strict=True)) == {"ham": 4827, "spam": 747}
    lines = (shared / "sms_spam" / "sms.tsv").read_text(encoding="utf-8").split("\n")
    assert found.fields["text"].tolist() == [line.split("\t")[1] for line in lines if line]
    assert "sms.tsv line 54 has a double quote that stands inside a value." in fails(shared / "sms_spam")


VALUES = [
    "1",
    "-2",
    "+4",
    "2.5",
    ".5",
    "1.",
    "1e5",
    "",
    "nan",
    "NA",
    "inf",
    " 3",
    "3 ",
    "007",
    "-05",
    "0",
    "-0",
    "1e-05",
]
VALUES += ["true", "x", "a 007", "x007", "2024-05-03", "9223372036854775808", "1_000", "0x10", "é"]


QUOTED = ["", "1", '"x"', '"x,y"', '"a ""b"""', '"two\nlines"', '"\n"', '""""']


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_every_table_is_read_as_the_csv_module_reads_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever stands in a column, and however late: the same texts, or an error that names the first uneven row."""
    drawn = st.lists(st.sampled_from(data.draw(st.sampled_from([VALUES[:5], VALUES[:8], VALUES, QUOTED]))), min_size=1)
    columns = [data.draw(drawn) for _ in range(data.draw(st.integers(1, 3)))]
    count = min(map(len, columns))
    rows = [",".join(column[row] for column in columns) for row in range(count)]
    if data.draw(st.booleans()):
        # Past what is peeked at, so that what a column seems to be is not what it is.
        rows = [",".join("7" for _ in columns)] * 250 + rows
    if data.draw(st.booleans()):
        rows.insert(data.draw(st.integers(0, len(rows))), data.draw(st.sampled_from(["1", "1,2", "1,2,3,4", ""])))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    content = end.join([",".join("abc"[: len(columns)]), *rows]) + data.draw(st.sampled_from(["", end]))
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_bytes(content.encode())
    try:
        frame = _csv.read(path, _csv.Dialect(separator=","))
    except UserError as error:
        found: list[list[str]] | str = str(error)
    else:
        found = [frame.columns, *([value or "" for value in row] for row in frame.rows())]
    reader = csv.reader(io.StringIO(content.replace("\r\n", "\n"), newline=""))
    expected = []
    line = 1
    for row in reader:
        if row and len(row) != len(columns):
            assert isinstance(found, str)
            assert f"line {line} has {len(row)} value" in found
            return
        if row:
            expected.append(row)
        line = reader.line_num + 1
    if len(expected) == 1:
        assert isinstance(found, str)
        assert "has a header and no rows" in found
        return
    assert found == expected


def packed(path: Path, content: bytes, inner: str = "a.csv") -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("__MACOSX/._a.csv", "x")
            archive.writestr(inner, content)
    else:
        path.write_bytes({".gz": gzip, ".bz2": bz2, ".xz": lzma}[path.suffix].compress(content))


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zip"])
def test_packed_tables(tmp_path: Path, ending: str) -> None:
    packed(tmp_path / f"a.csv{ending}", b"x,y\n1,b\n")
    assert Table.recognise(tmp_path / f"a.csv{ending}")
    assert read(tmp_path / f"a.csv{ending}").fields["x"].tolist() == [1]
    packed(tmp_path / f"b.tsv{ending}", b"x\ty\n1,5\tb\n", "b.tsv")
    assert read(tmp_path / f"b.tsv{ending}").fields["x"].tolist() == ["1,5"]
    packed(tmp_path / f"c.jsonl{ending}", b'{"x": 1}\n{"x": 2}\n', "c.jsonl")
    assert read(tmp_path / f"c.jsonl{ending}").fields["x"].tolist() == [1, 2]
    frame = io.BytesIO()
    polars.DataFrame({"x": [1, 2]}).write_parquet(frame)
    packed(tmp_path / f"d.parquet{ending}", frame.getvalue(), "d.parquet")
    assert read(tmp_path / f"d.parquet{ending}").fields["x"].tolist() == [1, 2]
    whole = (tmp_path / f"a.csv{ending}").read_bytes()
    (tmp_path / f"a.csv{ending}").write_bytes(whole[: len(whole) // 2])
    assert f"DIR/a.csv{ending} cannot be unpacked: " in fails(tmp_path / f"a.csv{ending}")


def test_archives(tmp_path: Path) -> None:
    packed(tmp_path / "data.zip", b"x,y\n1,b\n")
    assert Table.recognise(tmp_path / "data.zip")
    assert read(tmp_path / "data.zip").fields["y"].tolist() == ["b"]
    with zipfile.ZipFile(tmp_path / "data.zip", "a") as archive:
        archive.writestr("b.csv", "x\n1\n")
    assert fails(tmp_path / "data.zip") == (
        "the archive DIR/data.zip holds 2 tables: a.csv, b.csv. Expected one table. "
        "hint: unzip it, and name one of them"
    )
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("b.png", "x")
    assert not Table.recognise(tmp_path / "pictures.zip")
    # Of a table that is there packed and unpacked one is read.
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "a.csv").write_bytes(b"x,y\n1,b\n")
    packed(folder / "a.csv.gz", b"x,y\n1,b\n")
    assert read(folder).ids == ["row 1"]


def test_json_of_all_sorts(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [{"x": 1, "y": "b"}, {"x": 2, "y": None, "z": ["t"]}]
    pandas_columns = {"x": {"0": 1, "1": 2}, "y": {"0": "b", "1": None}}
    for content in (
        json.dumps(rows),
        json.dumps(rows, indent=2),
        "\n".join(map(json.dumps, rows)),
        json.dumps({"version": 1, "data": rows}),
        json.dumps({"x": [1, 2], "y": ["b", None]}),
        json.dumps(pandas_columns),
        json.dumps(pandas_columns, indent=1),
    ):
        found = read(path, content)
        assert found.fields["x"].tolist() == [1, 2], content
        assert found.fields["y"].tolist() == ["b", None]
        assert found.ids == ["row 1", "row 2"]
    assert read(path, json.dumps({"x": 1})).fields["x"].tolist() == [1]
    assert read(tmp_path / "b.jsonl", json.dumps(rows)).fields["x"].tolist() == [1, 2]
    assert fails(path, "[1, 2]") == (
        "DIR/a.json is JSON, but not a table: a list of int. "
        'Expected a list of objects such as [{"text": "...", "label": 1}, ...].'
    )
    assert "not a table: object with the keys type, n." in fails(path, json.dumps({"type": "x", "n": 1}, indent=1))
    assert fails(path, '[{"x": 1},\n{"x": 2,}]') == (
        "DIR/a.json:2 is not JSON: Expecting property name enclosed in double quotes at character 9. "
        "Expected a list of objects, or an object a line."
    )


def test_workbooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("fastexcel")
    book = openpyxl.Workbook()
    book.active.append(["id", "when", "x", "code", "label", None])
    for index in range(4):
        row = [index, dt.date(2020, 1, 1 + index), None if index == 1 else index / 2, f"0{index}", "ab"[index % 2]]
        book.active.append(row)
    book.create_sheet("Notes").append(["text"])
    book.save(tmp_path / "a.xlsx")
    found = read(tmp_path / "a.xlsx")
    assert list(found.fields) == ["id", "when", "x", "code", "label"]
    assert found.fields["id"].dtype == np.int64
    assert found.fields["when"].tolist()[1] == dt.datetime(2020, 1, 2)
    np.testing.assert_array_equal(found.fields["x"], [0, np.nan, 1, 1.5])
    assert found.fields["code"].tolist() == ["00", "01", "02", "03"]
    assert found.notes == ("a.xlsx: the first sheet was read, not Notes",)
    assert fails(tmp_path / "a.xlsx", config=TableConfig(sheet="Notse")) == (
        "DIR/a.xlsx has no sheet 'Notse'. Expected one of: Sheet, Notes. hint: did you mean 'Notes'?"
    )
    assert "DIR/b.xlsx is not a readable workbook: " in fails(tmp_path / "b.xlsx", "no workbook")
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    assert fails(tmp_path / "a.xlsx") == (
        "DIR/a.xlsx is a workbook, and no reader for those is installed. Expected the package fastexcel. "
        "hint: pip install 'sonde[excel]', or save the sheet as CSV"
    )


def test_ragged_rows_are_skipped_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"{index},{'ab'[index % 2]}" for index in range(50)]
    rows[7] += ",more"
    rows[9] = "9"
    rows[10] = '10,"a\nb"'
    content = "x,y\n" + "\n".join(rows) + "\n"
    assert "line 9 has 3 values, where there are 2 columns" in fails(path, content)
    found = read(path, content, TableConfig(ragged="skip"))
    assert found.fields["x"].tolist() == [index for index in range(50) if index not in (7, 9)]
    assert found.ids[6:9] == ["row 7", "row 9", "row 11"]
    assert found.fields["y"][8] == "a\nb"
    assert found.notes == ("skipped 2 rows, which have too many or too few values: a.csv lines 9, 11",)
    assert _csv.sniff(path).ragged == "skip"
    rows[20:30] = ["1,2,3"] * 10
    (tmp_path / "a.csv").write_text("x,y\n" + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match="line 9 has 3 values"):
        _csv.sniff(path)


def test_styles_of_dates(tmp_path: Path) -> None:
    for values, expected in [
        (["Jan 1 2000", "Dec 12 2000"], ["2000-01-01", "2000-12-12"]),
        (['"January 1, 2000"', '"Sept. 12, 2000"'], ["2000-01-01", "2000-09-12"]),
        (["1 January 2000", "12 feb 2000"], ["2000-01-01", "2000-02-12"]),
        (["01.02.2000", "31.12.1999"], ["2000-02-01", "1999-12-31"]),
        (["2000/1/31", "2000/12/1"], ["2000-01-31", "2000-12-01"]),
        (["2000-01-01T10:00:00+02:00", "2000-01-01T10:00:00Z"], ["2000-01-01T08", "2000-01-01T10"]),
        (["2000-01-01 10:00:00.5-0530"], ["2000-01-01T15:30:00.5"]),
        (["Jan 2000", "Mar 2001"], ["2000-01", "2001-03"]),
        (["01/2000", "12/2001"], ["2000-01", "2001-12"]),
        (["12-May-2020", "1-Jun-2020"], ["2020-05-12", "2020-06-01"]),
        (["5/31/2024 3:05 PM", "6/1/2024 12:00 AM"], ["2024-05-31T15:05", "2024-06-01"]),
        (['"Wed, 21 Oct 2015 07:28:00 GMT"'], ["2015-10-21T07:28"]),
        (["Mon Apr 06 22:19:45 2009"], ["2009-04-06T22:19:45"]),
        # In order in one of two readings only.
        (
            [f"{1 + month:02d}/{day:02d}/2020" for month in range(4) for day in (2, 5, 9)],
            [f"2020-{1 + month:02d}-{day:02d}" for month in range(4) for day in (2, 5, 9)],
        ),
    ]:
        found = column(tmp_path, *values)
        assert found.dtype == "datetime64[us]", values
        np.testing.assert_array_equal(found, np.array(expected, dtype="datetime64[us]"))
    for values in (["01/02/2020", "03/04/2020", "02/03/2020"], ["1.2.3", "2.3.4"], ["1200/5", "1300/6"], ["Maple 20"]):
        assert column(tmp_path, *values).tolist() == values
    given = TableConfig(dates={"x": "%d/%m/%Y"})
    (tmp_path / "one.csv").write_text("x,y\n01/02/2020,1\n")
    assert read(tmp_path / "one.csv", config=given).fields["x"][0] == np.datetime64("2020-02-01")
    (tmp_path / "one.csv").write_text("x,y\n01/02/2020,1\n01/13/2020,1\n")
    assert fails(tmp_path / "one.csv", config=given) == (
        "row 2 has '01/13/2020' in column 'x', which is no date in the format '%d/%m/%Y'. "
        "Expected what data.dates says of this column."
    )
