"""What the columns of a table are for: which one to learn, which ones to learn from, how to split. For `sonde new`.

Nothing here changes data: it only writes a first recipe, and says in notes and warnings what it was led by.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from sonde.base import number_formats
from sonde.base.errors import UserError, unknown
from sonde.contracts.records import MISSING_NUMBERS, Records, is_missing
from sonde.data.sources import _folders
from sonde.data.sources._folders import Medium
from sonde.data.sources._leaks import gives_away, sample, tells_of
from sonde.data.sources._smiles import is_smiles, varies
from sonde.data.sources._written import source_of, written
from sonde.data.split import part_of

Role = Literal[
    "feature",
    "text",
    "image",
    "audio",
    "video",
    "volume",
    "document",
    "molecule",
    "id",
    "time",
    "constant",
    "list",
    "unclear",
]


# Roles of columns that name files, in the order in which they are preferred.
_FILES: tuple[Literal["image", "audio", "video", "volume"], ...] = ("image", "audio", "video", "volume")
_SPLIT_NAMES = frozenset({"split", "fold", "subset", "set", "partition"})
# Names of columns that people learn: alone, or as a word of a longer name.
_TARGETS = frozenset(
    {"label", "labels", "target", "class", "category", "y", "survived", "outcome", "species", "diagnosis", "tags"}
)
_WORDS_OF_TARGETS = frozenset({"price", "value", "cost", "quality", "sentiment", "churn", "fraud", "spam", "measured"})
_TARGET_WORDS = _TARGETS | _WORDS_OF_TARGETS
# And those of well-known data sets, where no other name speaks.
_USUAL_TARGETS = frozenset({"default", "response", "attrition", "exited", "approved", "converted"})
_USUAL_NUMBERS = frozenset({"medv", "mpg", "wage", "salary", "yield", "charges"})
# When and where something was is known before, though it stand last.
_WHEN_OR_WHERE = re.compile(
    r"(?i)(.*[_\W])?(day|month|year|hour|minute|second|week|weekday|time|date|lat|latitude|lon|lng|long|longitude)s?"
)
_ID = re.compile(r"(?i:(.*[_\W])?(id|ids|uuid|guid)|key|index|unnamed.*|row_?names?)|.*[a-z](Id|ID)")
_GROUP = re.compile(
    r"(.*[_\W])?(patient|subject|speaker|user|customer|client|person|household|family|session|author|site)"
    r"([_\W]?(id|name|number|no|key))?",
    re.I,
)
# From so many words in the middle value on, texts are read; shorter ones are names.
_WORDS = 5
# What stands between the labels of a list; a comma does in many a sentence too, and needs to be asked for.
_LIST_SEPARATORS = (";", "|")
# A text or a number of which this share are all different identifies records.
_DIFFERENT = 0.5
# Whole numbers with more different values than this are a quantity.
_MANY = 20
_FEW_RECORDS = 3
# A table with fewer rows than this is a first try: whatever it holds is rare.
_FEW_ROWS = 10
# Labels of a list with fewer records than this are too rare to learn.
_RARE_LABEL = 10
# What manifests say of files, and files say themselves.
_ABOUT_FILES = re.compile(
    r"(?i)(.*[_\W])?(width|height|channels?|duration(_s|_ms)?|seconds|sampl(e|ing)[_ ]?rate|num_samples|bytes|size|mode"
    r"|format|ext(ension)?|url|licen[cs]e|author|source|md5|sha\d*|frames|split|fold|set)"
)
# Texts whose words are counted.
_SAMPLE = 1000
_WHAT = {
    "molecule": "molecules",
    "time": "dates",
    "image": "picture files",
    "audio": "sound files",
    "video": "clips",
    "volume": "scans",
    "document": "files",
    "unclear": "dates",
}
NONE: Mapping[str, Medium] = MappingProxyType({})
NO_REASONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The parts of a guess that a table gives."""

    inputs: Mapping[str, Mapping[str, Any]]
    target: Mapping[str, Any]
    split: Mapping[str, Any]
    notes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    read_as: list[str] = field(default_factory=list)
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Column:
    name: str
    values: np.ndarray
    role: Role
    distinct: int
    missing: int


def guess(
    records: Records,
    target: str | None,
    *,
    files: Mapping[str, Medium] = NONE,
    unclear: Collection[str] = (),
    looked: str | None = None,
) -> Roles:
    """The roles of the fields of a table; `target` is the user's choice of what to learn.

    `files` are the columns that name files, and of what kind; `unclear` those with dates that may be read in two ways;
    `looked` says which files were looked for and not found.

    Raises:
        UserError: there is no such column, or nothing can be learned about it or from the others.
    """
    given = _split_field(records)
    notes_of_formats: list[str] = []
    unsure: list[str] = []
    columns = {name: _column(name, values) for name, values in records.fields.items() if name != given}
    columns = {name: _with_role(column, files, unclear) for name, column in columns.items()}
    if target is not None and target not in columns:
        raise unknown(target, columns, what="--target: the column")
    columns = {name: _as_numbers(column, notes_of_formats, unsure) for name, column in columns.items()}
    chosen, why = (target, "") if target is not None else _choose(columns)
    writes = _is_written(chosen, columns)
    notes = {"target.field": f"{why}; --target chooses another"} if why else {}
    warnings = list(unsure)
    learn = _text_target(chosen, columns) if writes else _target(columns[chosen], notes)
    data: dict[str, Any] = {}
    if columns[chosen].missing:
        data["drop_unlabelled"] = True
        count = columns[chosen].missing
        notes["data.drop_unlabelled"] = f"left out: {count:,} of {len(records):,} rows, without a value in {chosen!r}"
        if 2 * count > len(records):
            warnings.append(f"{count:,} of {len(records):,} rows have no value in {chosen!r}, and are left out")
    infinite = [name for name, column in columns.items() if _infinite(column.values)]
    warnings += [f"{name!r} has an infinite value: such rows are unreadable" for name in infinite]
    others = [column for name, column in columns.items() if name != chosen]
    inputs = _inputs(others, columns[chosen], learn["kind"], notes, warnings, looked)
    split = _split(records, given, columns[chosen], learn["kind"], notes, warnings)
    if split["by"] != "given":
        warnings += _other_splits(others)
    return Roles(
        inputs=inputs,
        target=learn,
        split=split,
        notes=notes,
        warnings=warnings,
        read_as=notes_of_formats,
        data=data,
    )


def _with_role(column: _Column, files: Mapping[str, Medium], unclear: Collection[str]) -> _Column:
    """The column as one of files, or of dates that are not clear, where that was found out."""
    if column.name in unclear:
        return replace(column, role="unclear")
    medium = files.get(column.name)
    if medium is None:
        return column
    role: Role = "document" if medium == "text" else medium
    return replace(column, role=role)


def _as_numbers(column: _Column, notes: list[str], unsure: list[str]) -> _Column:
    """A column of numbers as people write them ($1,234.00) as what it says; what was found is noted."""
    values = column.values
    if values.dtype != object or column.role not in ("feature", "text", "id", "list"):
        return column
    texts = [value for value in values if isinstance(value, str) and value.strip().lower() not in MISSING_NUMBERS]
    found = number_formats.detect(texts)
    if found is None or found[0] == number_formats.PLAIN:
        return column
    shown = f"{texts[0]!r} as {number_formats.parse(texts[0], found[0]):g}"
    notes.append(f"{column.name}: {shown}")
    if found[1]:
        unsure.append(
            f"{column.name!r} is read with commas between thousands ({shown}); if they are decimal commas, set "
            'data.decimal = ","'
        )
    numbers = number_formats.parse_many(values, found[0])
    return replace(_column(column.name, numbers), missing=column.missing)


def names_for(columns: Sequence[np.ndarray]) -> list[str]:
    """Names for the columns of a file without a header: "text" and "label" where there is one of that sort."""
    found = [_column("", values) for values in columns]
    texts = [place for place, one in enumerate(found) if one.role == "text"]
    labels = [place for place, one in enumerate(found) if one.role == "feature" and one.values.dtype == object]
    names = [f"column_{number}" for number in range(1, len(found) + 1)]
    for name, places in (("text", texts), ("label", labels)):
        if len(places) == 1:
            names[places[0]] = name
    return names


def _column(name: str, values: np.ndarray) -> _Column:
    missing = is_missing(values)
    present = values[~missing].tolist()
    try:
        distinct = len(set(present))
    except TypeError:  # lists and mappings
        return _Column(name=name, values=values, role="list", distinct=len(present), missing=int(missing.sum()))
    role: Role = "constant" if distinct < 2 else _role(name, values, present, distinct)
    return _Column(name=name, values=values, role=role, distinct=distinct, missing=int(missing.sum()))


def _role(name: str, values: np.ndarray, present: list[Any], distinct: int) -> Role:
    if values.dtype.kind == "M":
        return "time"
    named = distinct > _MANY and _names_records(name, values)
    if values.dtype != object:
        # Whole numbers in a row only count the rows.
        counts = values.dtype.kind == "i" and distinct == len(present) > _MANY
        return "id" if named or (counts and max(present) - min(present) == distinct - 1) else "feature"
    texts = [value for value in present if isinstance(value, str)]
    if len(texts) < len(present):
        return "feature" if all(isinstance(value, (str, bool, int, float)) for value in present) else "list"
    suffixes = {_folders.suffix_of(PurePath(text).name) for text in texts}
    for medium in _FILES:
        if suffixes <= _folders.MEDIA[medium]:
            return medium
    if is_smiles(name, texts):
        return "molecule"
    if named or (distinct > _MANY and distinct > _DIFFERENT * len(present)):
        if not named and _separator(texts, _LIST_SEPARATORS):
            return "list"
        some = texts[:: 1 + len(texts) // _SAMPLE]
        return "text" if np.median([len(text.split()) for text in some]) >= _WORDS else "id"
    return "feature"


def _choose(columns: Mapping[str, _Column]) -> tuple[str, str]:
    """The column to learn where the user named none, and what speaks for it."""
    able = {name: one for name, one in columns.items() if one.role in ("feature", "list")}
    lower = {name.lower() for name in able}
    for name in able:
        # Beside x and z, y is a length or a place.
        if name.lower() in _TARGETS and not (name.lower() == "y" and "z" in lower):
            return name, "chosen by its name"
    for name in able:
        if name.lower() in _WORDS_OF_TARGETS:
            return name, "chosen by its name"
    found = _written(columns)
    if found is not None:
        return found, "chosen by its name"
    for name in reversed(able):
        if _TARGET_WORDS & set(re.split(r"[\W_]+", name.lower())):
            return name, "chosen by its name"
    texts = [name for name, one in columns.items() if one.role == "text"]
    if not able and len(texts) == 2:
        return texts[1], f"the second of two texts, written from {texts[0]!r}"
    if not able:
        raise UserError(
            f"none of the columns looks like something to learn: {_listed(columns.values())}",
            expected="a column of classes or numbers",
            hint="sonde new --target names it",
        )
    for name, column in able.items():
        if name.lower() in _USUAL_TARGETS or (name.lower() in _USUAL_NUMBERS and not _is_text(column)):
            return name, "chosen by its name"
    able = {name: one for name, one in able.items() if not _WHEN_OR_WHERE.fullmatch(name)} or able
    # Many classes, some of them rare, are rather names.
    common = [name for name, one in able.items() if one.distinct <= _MANY or not (_is_text(one) and _rare(one.values))]
    return [*able, *common][-1], "the last column with classes or numbers"


def _written(columns: Mapping[str, _Column]) -> str | None:
    """The column that looks like a text to write from the others."""
    roles = {one.role for one in columns.values()}
    texts = {name: one.values for name, one in columns.items() if one.values.dtype == object}
    texts = {name: values for name, values in texts.items() if columns[name].role not in (*_FILES, "list")}
    return written(texts, sound="audio" in roles, picture="image" in roles)


def _is_written(name: str, columns: Mapping[str, _Column]) -> bool:
    """Whether a column is to be learned as a text: by its name, or because it holds whole texts and others are there to
    write it from."""
    if _written(columns) == name:
        return True
    others = {one.role for other, one in columns.items() if other != name}
    whole = columns[name].role == "text" and _separator(columns[name].values, (*_LIST_SEPARATORS, ",")) is None
    return whole and bool(others & {"text", *_FILES})


def _text_target(name: str, columns: Mapping[str, _Column]) -> dict[str, Any]:
    """What a recording says comes in its order: CTC; every other text is written freely."""
    sound = any(column.role == "audio" for column in columns.values())
    return {"kind": "ctc" if sound else "sequence", "field": name}


def _is_text(column: _Column) -> bool:
    return column.values.dtype == object


def _target(column: _Column, notes: dict[str, str]) -> dict[str, Any]:
    name, values = column.name, column.values
    if column.role == "constant":
        raise UserError(f"the column {name!r} has one value in all rows: there is nothing to learn")
    separator = _separator(values, _LIST_SEPARATORS if column.role == "feature" else (*_LIST_SEPARATORS, ","))
    if column.role == "list" or (separator and column.role in ("feature", "text", "id")):
        return _labels(name, values, separator, notes)
    if (
        column.role in ("time", *_FILES, "document", "molecule", "text", "id", "unclear")
        and values.dtype.kind not in "if"
    ):
        what = _WHAT.get(column.role, "texts")
        raise UserError(
            f"the column {name!r} has {column.distinct} different {what} in {len(values)} rows",
            expected="a column of classes or numbers to learn",
        )
    if values.dtype == object:
        return {"kind": "category", "field": name}
    present = values[~is_missing(values)]
    whole = bool((present == np.floor(present)).all())
    if whole and (column.distinct <= _MANY or (name.lower() in _TARGETS and column.distinct * 10 <= len(present))):
        notes["target.kind"] = f"{column.distinct} different whole numbers; for a quantity: number"
        return {"kind": "category", "field": name}
    return {"kind": "number", "field": name}


def _separator(values: Iterable[Any], separators: Sequence[str]) -> str | None:
    """What stands between labels, when values look like lists of labels that come again."""
    texts = [value for value in values if isinstance(value, str)]
    for separator in separators:
        lists = [text.split(separator) for text in texts]
        labels = Counter(label.strip() for each in lists for label in each)
        again = sum(count for count in labels.values() if count > 1) > 0.5 * labels.total()
        few = len(labels) < len(set(texts))
        if sum(len(each) > 1 for each in lists) > 0.1 * len(texts) and (again or few):
            return separator
    return None


def _labels(name: str, values: np.ndarray, separator: str | None, notes: dict[str, str]) -> dict[str, Any]:
    setting: dict[str, Any] = {"kind": "labels", "field": name}
    if separator:
        notes["target.kind"] = f"values hold several labels; they are apart by {separator!r}"
        setting["separator"] = separator
    lists = [value.split(separator) if isinstance(value, str) else value for value in values if value is not None]
    sets = [{str(label).strip() for label in each} - {""} for each in lists if isinstance(each, list)]
    counts = Counter(label for each in sets for label in each)
    rare = sum(count < _RARE_LABEL for count in counts.values())
    # One that only the test split has would stop the training; and a handful of records teaches nothing.
    if 0 < rare < len(counts):
        setting["min_count"] = _RARE_LABEL
        notes["target.min_count"] = f"{rare:,} of {len(counts):,} labels are rarer, and are ignored"
    return setting


def _inputs(
    others: Sequence[_Column],
    target: _Column,
    kind: str,
    notes: dict[str, str],
    warnings: list[str],
    looked: str | None,
) -> dict[str, dict[str, Any]]:
    """Files, texts and features, each an input of its own; what is left out is said."""
    by_role: dict[str, list[_Column]] = {}
    for column in others:
        by_role.setdefault(column.role, []).append(column)
    files = [by_role[role][0] for role in (*_FILES, "document", "molecule") if role in by_role]
    # Several columns of texts are read one after another; texts in files stand alone.
    texts = [] if "document" in by_role else by_role.get("text", [])
    if kind in ("sequence", "ctc"):
        files = [column for column in files if column.role != "molecule"]
        return _to_write_from(files[:1] or [*texts, *by_role.get("id", [])], target, others, notes)
    features = [*by_role.get("feature", []), *by_role.get("time", [])]
    why: dict[str, str] = {}
    if files:
        molecule = next((column for column in files if column.role == "molecule"), None)
        why = {column.name: reason for column in features if (reason := _adds_nothing(column, target, molecule))}
        features = [column for column in features if column.name not in why]
    features = _without_leaks(features, target, kind, needed=not texts and not files, warnings=warnings)
    if not texts and not features and not files:
        texts = [column for column in by_role.get("id", []) if column.values.dtype == object][:1]
    inputs: dict[str, dict[str, Any]] = {}
    for column in files:
        medium = "text" if column.role == "document" else column.role
        inputs[medium] = {"kind": medium, "field": column.name}
    if texts:
        also = [column.name for column in texts[1:]]
        inputs["text"] = {"kind": "text", "field": texts[0].name, **({"also": also} if also else {})}
    if features:
        order = [column.name for column in others if column in features]
        inputs["table"] = {"kind": "table", "fields": order}
        # A value that only a held-out row lacks would make that row unreadable.
        if any(column.missing for column in features):
            inputs["table"]["allow_missing"] = True
    if not inputs:
        raise UserError(
            f"there is no column to learn {target.name!r} from" + (f": {_listed(others)}" if others else ""),
            expected="columns with numbers, categories, texts or file names",
            hint=looked,
        )
    if len(inputs) > 1:
        notes["inputs"] = f"{' and '.join(inputs)} are learned from together; to drop one, delete its two sections"
    left = [column for column in others if column not in (*files, *texts, *features)]
    first = next(iter(inputs))
    _note(notes, "inputs.table.fields" if features else f"inputs.{first}.field", left, why)
    return inputs


def _to_write_from(
    able: Sequence[_Column], target: _Column, others: Sequence[_Column], notes: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """The one text, picture or sound that a text is written from."""
    named = source_of([column.name for column in able], target.name)
    chosen = next((column for column in able if column.name == named), next(iter(able), None))
    if chosen is None:
        raise UserError(
            f"there is no column to write {target.name!r} from" + (f": {_listed(others)}" if others else ""),
            expected="a column with texts, or with names of picture or sound files",
        )
    medium = chosen.role if chosen.role in _FILES else "text"
    _note(notes, f"inputs.{medium}.field", [column for column in others if column is not chosen], {})
    return {medium: {"kind": medium, "field": chosen.name}}


def _adds_nothing(column: _Column, target: _Column, molecule: _Column | None) -> str | None:
    """Why a feature beside files or molecules is not worth asking for, if it is not."""
    if molecule is not None and not varies(molecule.values, column.values):
        return "never differs for one molecule"
    if _names_group(column):
        return "names a group"
    if _ABOUT_FILES.fullmatch(column.name):
        return "is about the file"
    rows = sample(target.values)
    return None if tells_of(column.values[rows], target.values[rows]) else f"tells nothing of {target.name!r}"


def _without_leaks(
    features: list[_Column], target: _Column, kind: str, *, needed: bool, warnings: list[str]
) -> list[_Column]:
    """The features that do not give the answer away; all of them where nothing else would be left."""
    rows = sample(target.values)
    answers = target.values[rows]
    leaks = {one.name: why for one in features if (why := gives_away(one.name, one.values[rows], answers, kind))}
    kept = [column for column in features if column.name not in leaks]
    if needed and not kept:
        kept = features
    for name, why in leaks.items():
        left = "" if kept is features else ", and was left out"
        warnings.append(f"{name!r} {why}{left}: is it known when {target.name!r} is asked for?")
    return kept


def _infinite(values: np.ndarray) -> bool:
    return values.dtype.kind == "f" and bool(np.isinf(values).any())


def _names_records(name: str, values: np.ndarray) -> bool:
    return values.dtype.kind != "f" and bool(_ID.fullmatch(name) or _GROUP.fullmatch(name))


def _names_group(column: _Column) -> bool:
    return column.values.dtype.kind != "f" and bool(_GROUP.fullmatch(column.name))


def _note(
    notes: dict[str, str], setting: str, left_out: Sequence[_Column], why: Mapping[str, str] = NO_REASONS
) -> None:
    if left_out:
        notes[setting] = f"left out: {_listed(left_out, why)}"


def _listed(columns: Iterable[_Column], why: Mapping[str, str] = NO_REASONS) -> str:
    """The names of columns, with what is the matter with them; `why` knows more of some."""
    usual = {
        "id": " (names records)",
        "constant": " (one value)",
        "list": " (lists or objects)",
        "image": " (more pictures)",
        "audio": " (more sounds)",
        "molecule": " (more molecules)",
        "video": " (more clips)",
        "volume": " (more scans)",
        "text": " (texts beside those in files)",
        "unclear": " (dates: day or month first? say so with data.dates)",
    }
    return ", ".join(
        column.name + (f" ({why[column.name]})" if column.name in why else usual.get(column.role, ""))
        for column in columns
    )


def _split_field(records: Records) -> str | None:
    """The column that says which split a record belongs to."""
    for name, values in records.fields.items():
        if name.lower() in _SPLIT_NAMES and values.dtype == object:
            parts = {part_of(value) for value in values}
            if None not in parts and "train" in parts:
                return name
    return None


def _split(
    records: Records, given: str | None, target: _Column, kind: str, notes: dict[str, str], warnings: list[str]
) -> dict[str, Any]:
    if given is not None:
        # Rows without a target belong to no split.
        parts = {part_of(value) for value in records.fields[given][~is_missing(target.values)]}
        setting, warning = _folders.given_split({part for part in parts if part})
        warnings += [warning] if warning else []
        unseen = _unseen(target.values, records.fields[given]) if kind == "category" else []
        if unseen:
            warnings.append(f"{_classes(unseen)} of {target.name!r} without a training row")
        return setting if given == "split" else {**setting, "field": given}
    if kind != "category":
        return {"by": "random", "validation": 0.1, "test": 0.1}
    rare = _rare(target.values)
    if not rare:
        return {"by": "stratified", "validation": 0.1, "test": 0.1}
    rows = len(target.values) - target.missing
    if rows >= _FEW_ROWS and 2 * len(rare) > target.distinct and 2 * sum(rare.values()) > rows:
        raise UserError(
            f"{len(rare):,} of the {target.distinct:,} values in {target.name!r} have fewer than {_FEW_RECORDS} rows",
            expected="classes with several rows each",
            hint="sonde new --target names another column",
        )
    warnings.append(
        f"{_classes(list(rare))} of {target.name!r} with fewer than {_FEW_RECORDS} rows: all of them train, and no "
        "score tells how well they are learned"
    )
    return {"by": "stratified", "rare": "train", "validation": 0.1, "test": 0.1}


def _unseen(target: np.ndarray, splits: np.ndarray) -> list[str]:
    """The classes that some split has and the training split has not."""
    parts = np.array([part_of(split) for split in splits])
    names = _folders.objects([str(value) for value in target])
    parts[is_missing(target)] = "none"
    return sorted(set(names[np.isin(parts, ("validation", "test"))]) - set(names[parts == "train"]))


def _rare(values: np.ndarray) -> dict[str, int]:
    """The classes with fewer records than a split needs, and how many they have."""
    counts = Counter(map(str, values[~is_missing(values)].tolist()))
    return {name: count for name, count in counts.items() if count < _FEW_RECORDS}


def _other_splits(columns: Sequence[_Column]) -> list[str]:
    """Splits that would be more honest than chance, where a column speaks for them."""
    found = []
    for column in columns:
        if column.role == "time":
            found.append(
                f"{column.name!r} is a time: if later records are to be predicted, "
                f'split = {{ by = "time", field = "{column.name}" }}'
            )
        elif _names_group(column) and 2 < column.distinct < len(column.values):
            found.append(
                f"records share a {column.name!r}: if new ones bring their own, "
                f'split = {{ by = "group", field = "{column.name}" }}'
            )
    return found


def _classes(names: list[str]) -> str:
    return (
        f"there is the class {names[0]!r}"
        if len(names) == 1
        else f"there are {len(names)} classes such as {names[0]!r}"
    )
