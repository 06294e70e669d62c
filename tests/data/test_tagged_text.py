"""Tagged words: every format and layout, what is recognised and what is left to others, and what each error says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sonde.base.errors import UserError
from sonde.base.lookup import find, kinds
from sonde.contracts.records import Records
from sonde.data.source import Source
from sonde.data.sources.tagged_text import TaggedText, TaggedTextConfig

CONLL = "EU B-org\nrejects O\n\nPeter B-per\nBlackburn I-per\n"
CONLLU = """\
# newdoc id = d
# sent_id = s-1
# text = don't go
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\tVB\tMood=Imp\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
3\tgo\tgo\tVERB\tVB\tMood=Imp\t0\troot\t_\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_

# sent_id = s-2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""


def write(root: Path, **files: str | bytes) -> Path:
    """Files of a folder; a name's first underscore stands for the point before its ending."""
    root.mkdir(exist_ok=True)
    for name, content in files.items():
        path = root / name.replace("_", ".", 1)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def rows(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def read(path: Path, **settings: Any) -> Records:
    return TaggedText.read(path, TaggedTextConfig(**settings))


def sentences(records: Records) -> list[str]:
    both = zip(records.fields["words"], records.fields["tags"], strict=True)
    return [" ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True)) for words, tags in both]


def fails(path: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(path, **settings)
    return str(caught.value).replace(str(path), "ROOT")


def recognising(path: Path) -> list[str]:
    return [name for name in kinds("sources") if find("sources", name, Source).recognise(path)]


def test_conll(tmp_path: Path) -> None:
    path = write(tmp_path, a_conll=CONLL) / "a.conll"
    records = read(path)
    assert sentences(records) == ["EU/B-org rejects/O", "Peter/B-per Blackburn/I-per"]
    assert records.ids == ["a.conll:1", "a.conll:4"]
    assert set(records.fields) == {"words", "tags"}
    for content in (
        b"\xef\xbb\xbf" + CONLL.encode(),
        CONLL.replace("\n", "\r\n"),
        CONLL.replace(" ", "\t"),
        CONLL.replace(" ", " X  Y "),
        "-DOCSTART- -X- O\n\n" + CONLL.replace(" ", " X ").replace("\n\n", "\n \n\n-DOCSTART- -X- O\n"),
        "# a comment\n" + CONLL.replace("\n\n", "\n\n# more of them\n# 2\n") + "\n\n",
    ):
        write(tmp_path, a_conll=content)
        assert sentences(read(path)) == sentences(records)


def test_conll_columns(tmp_path: Path) -> None:
    path = write(tmp_path, a_bio="1\tEU\tNNP\tB-org\n2\tsays\tVBZ\tO\n\n1\tno\tDT\tO\n") / "a.bio"
    assert sentences(read(path, word_column=1)) == ["EU/B-org says/O", "no/O"]
    assert sentences(read(path, word_column=-3, tag_column=2)) == ["EU/NNP says/VBZ", "no/DT"]
    guess = TaggedText.guess(path, None)
    assert guess.data["word_column"] == 1
    assert guess.notes["data.word_column"] == "the first column numbers the words"
    assert fails(path, tag_column=4) == (
        "data.tag_column = 4, and ROOT:1 has 4 columns. Expected a number from 0 to 3, or from the end: -1 to -4."
    )
    assert fails(path, tag_column=-4) == (
        "words and tags of ROOT would both be taken from column 0 of 4. "
        "hint: data.word_column and data.tag_column choose them, from 0"
    )


def test_a_word_may_be_a_hash_or_hold_a_space(tmp_path: Path) -> None:
    path = write(tmp_path, a_conll="# 1\n# O\n# B-x\na B-x\n# O\n\nb O\n") / "a.conll"
    assert sentences(read(path)) == ["#/O #/B-x a/B-x #/O", "b/O"]
    write(tmp_path, a_conll="# source 1\n#\tO\na\tO\n\n#x\nb c\tO\n")
    assert sentences(read(path)) == ["#/O a/O", "b c/O"]
    write(tmp_path, a_conll="10\u00a0000 O\n")
    assert sentences(read(path)) == ["10\u00a0000/O"]


def test_conllu(tmp_path: Path) -> None:
    path = write(tmp_path, a_conllu=CONLLU) / "a.conllu"
    records = read(path)
    assert sentences(records) == ["do/AUX n't/PART go/VERB", "#/SYM"]
    assert records.ids == ["s-1", "s-2"]
    assert sentences(read(path, tag="xpos")) == ["do/VB n't/RB go/VB", "#/_"]
    assert sentences(read(path, tag="feats")) == ["do/Mood=Imp n't/_ go/Mood=Imp", "#/_"]
    assert sentences(read(path, tag="deprel")) == ["do/aux n't/advmod go/root", "#/root"]
    assert fails(path, tag="xpo") == (
        "data.tag: the CoNLL-U column 'xpo' does not exist. Expected one of: deprel, feats, upos, xpos. "
        "hint: did you mean 'xpos'?"
    )
    guess = TaggedText.guess(path, None)
    assert guess.data["tag"] == "upos"
    assert guess.notes["data.tag"] == "a column of CoNLL-U; others: xpos, feats, deprel"
    guess = TaggedText.guess(path, "xpos")
    assert guess.data["tag"] == "xpos"
    assert guess.warnings[-1] == "words without an xpos (1) have the tag '_'"
    # CoNLL-X, and CoNLL-U under another name.
    write(tmp_path, b_conll=CONLLU)
    assert sentences(read(tmp_path / "b.conll")) == sentences(records)


def test_ids_are_unique(tmp_path: Path) -> None:
    path = write(tmp_path, a_conllu=CONLLU + "\n" + CONLLU.replace("s-2", "a.conllu:4"))
    assert read(path).ids == ["a.conllu:4", "a.conllu:11", "a.conllu:16", "a.conllu:23"]
    write(tmp_path, a_conllu=CONLLU + "\n" + CONLLU.replace("s-2", "s-3").replace("s-1", "s-2"))
    assert read(path).ids == ["s-1", "a.conllu:11", "a.conllu:16", "s-3"]


def test_conllu_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu"
    write(tmp_path, a_conllu=CONLLU.replace("\tVERB\tVB\tM", "\t_\tVB\tM"))
    assert fails(path) == (
        "ROOT:7 has no upos for the word 'go'. Expected a tag for every word. "
        'hint: data.tag = "xpos" learns another column'
    )
    write(tmp_path, a_conllu=CONLLU.replace("3\tgo", "x\tgo"))
    assert fails(path) == (
        "ROOT:7 begins with 'x'. Expected the number of the word (3), of several (3-4) or of an empty node (5.1)."
    )
    write(tmp_path, a_conllu=CONLLU.replace("\troot\t_\t_", "\troot"))
    assert fails(path) == (
        "ROOT:7 has 8 columns: 3 go go VERB VB Mood=Imp 0 root. Expected the ten columns of CoNLL-U between tabs. "
        "hint: a blank line ends a sentence"
    )
    write(tmp_path, a_conllu=CONLLU.replace("3\tgo", "3\t"))
    assert fails(path) == "ROOT:7 has no word. Expected the word in the second column."
    write(tmp_path, a_conllu=CONLLU)
    assert fails(path, tag_column=1) == (
        'data.tag_column = 1 means nothing here: ROOT is CoNLL-U. hint: data.tag = "xpos" chooses a column by name'
    )


def test_conll_errors(tmp_path: Path) -> None:
    path = write(tmp_path, a_conll=CONLL.replace("Blackburn", "Mr Blackburn")) / "a.conll"
    assert fails(path) == (
        "ROOT:5 has 3 columns: Mr Blackburn I-per. Expected 2 columns, as in line 1. hint: a blank line ends a sentence"
    )
    write(tmp_path, a_conll="\nEU\nB-org\n")
    assert fails(path) == ("ROOT:2 has one column: EU. Expected a word and its tag, with a tab or spaces between them.")
    write(tmp_path, a_conll="EU\tB-org\n\nno\t\n")
    assert fails(path) == "ROOT:3 has no tag for the word 'no'. Expected a word and its tag in every line."
    write(tmp_path, a_conll="EU\tB-org\n\n\tO\n")
    assert fails(path) == "ROOT:3 has no word. Expected a word and its tag in every line."
    write(tmp_path, a_conll="\n# nothing\n\n")
    assert fails(path) == (
        "ROOT has no words. Expected lines with a word and its tag, and blank lines between sentences."
    )
    write(tmp_path, a_conll=b"EU O\ncaf\xe9 O\n")
    assert fails(path) == (
        "ROOT:2 is not UTF-8: byte 0xe9 at offset 8. Expected text in UTF-8. "
        "hint: iconv -f LATIN1 -t UTF-8 a.conll > converted.conll, if it is Latin-1"
    )
    write(tmp_path, a_conll=CONLL)
    assert fails(path, tag="upos") == (
        "data.tag = 'upos' means nothing here: ROOT is CoNLL. hint: data.tag_column = 1 chooses by number"
    )
    with pytest.raises(UserError, match=r"CoNLL columns have no names: there is no 'pos' to learn"):
        TaggedText.guess(path, "pos")
    assert fails(tmp_path / "none") == "the data set ROOT does not exist."


def test_lists_in_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for words, tags in (("tokens", "tags"), ("words", "labels"), ("tokens", "ner_tags")):
        write(tmp_path, a_jsonl="\n" + rows({words: ["In", "Oslo"], tags: ["O", "B-x"]}, {words: ["."], tags: ["O"]}))
        records = read(path)
        assert sentences(records) == ["In/O Oslo/B-x", "./O"]
        assert records.ids == ["a.jsonl:2", "a.jsonl:3"]
        assert recognising(path) == ["tagged-text"]
    write(tmp_path, a_jsonl=rows({"tokens": ["In", "Oslo"], "tags": ["O", "B-x"], "pos": ["ADP", "PROPN"]}))
    assert sentences(read(path, tag="pos")) == ["In/ADP Oslo/PROPN"]
    assert TaggedText.guess(path, "pos").data["tag"] == "pos"
    assert fails(path, tag="pso") == ("ROOT:1 has no 'pso', which data.tag names. Expected one of: tokens, tags, pos.")


@pytest.mark.parametrize(
    "spans",
    [
        {"spans": [[3, 11, "place"]]},
        {"entities": [{"start": 3, "end": 11, "label": "place"}]},
        {"labels": [[3, 12, "place"]]},
        {"label": [{"start": 3, "end": 11, "text": "New York", "labels": ["place"]}]},
        {"entities": [{"id": 1, "label": "place", "start_offset": 3, "end_offset": 11}], "relations": []},
        {"spans": [{"start": 3, "end": 11, "label": "place"}], "tokens": [{"text": "In", "start": 0}]},
        {"labels": [[3, 11, "place"]], "tokens": ["In", "New York"]},
    ],
)
def test_spans_in_json(tmp_path: Path, spans: dict[str, Any]) -> None:
    text = "In New York it's 5.5 \u00b0C."
    (key,) = [key for key in spans if key not in ("relations", "tokens")]
    write(tmp_path, a_ndjson=rows({"text": "None", key: []}, {"text": text, **spans}))
    assert recognising(tmp_path / "a.ndjson") == ["tagged-text"]
    assert sentences(read(tmp_path / "a.ndjson")) == [
        "None/O",
        "In/O New/B-place York/I-place it/O 's/O 5.5/O \u00b0/O C/O ./O",
    ]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"tokens": ["a", "b"], "tags": ["O"]},
            "has 2 words in 'tokens' and 1 tags in 'tags'. Expected a tag for every word.",
        ),
        (
            {"tokens": ["a"], "ner_tags": [3]},
            "has the tag 3 for the word 'a'. Expected tags as texts. hint: write the names that the numbers stand for",
        ),
        ({"tokens": ["a"], "tags": [None]}, "has no tag for the word 'a'. Expected tags as texts."),
        ({"tokens": ["a"], "tags": [""]}, "has an empty tag for the word 'a'. Expected a tag for every word."),
        ({"tokens": [" "], "tags": ["O"]}, "has an empty word. Expected a tag for every word."),
        ({"tokens": [], "tags": []}, "has no words. hint: remove the line"),
        ({"text": " ", "spans": []}, "has a text without words. hint: remove the line"),
        (
            {"text": "a"},
            'has the keys text. Expected a record such as {"tokens": ["In", "Oslo"], "tags": ["O", "B-place"]} '
            'or {"text": "In Oslo", "spans": [[3, 7, "place"]]}.',
        ),
        (
            {"text": "the Parisians", "spans": [[4, 9, "x"]]},
            "has the span 4-9 (x), which ends inside the word 'Parisians' at 4. "
            "Expected spans of whole words, the end after their last character. "
            "hint: correct the span, or give the words themselves: tokens and tags",
        ),
        (
            {"text": "the Parisians", "spans": [[5, 13, "x"]]},
            "has the span 5-13 (x), which begins inside the word 'Parisians' at 4. "
            "Expected spans of whole words, the end after their last character. "
            "hint: correct the span, or give the words themselves: tokens and tags",
        ),
        (
            {"text": "a  b", "spans": [[1, 3, "x"]]},
            "has the span 1-3 (x), which holds no word. Expected spans of one word or more.",
        ),
        (
            {"text": "a b c", "spans": [[0, 3, "x"], [2, 5, "y"]]},
            "has the span 2-5 (y), whose word 'b' is in another span (x) too. "
            "Expected spans that do not overlap: a word has one tag.",
        ),
        (
            {"text": "a b", "spans": [[2, 4, "x"]]},
            "has the span 2-4 (x) in a text of 3 characters. "
            "Expected a start before the end, and both within the text.",
        ),
        (
            {"text": "a b", "spans": [{"start": 0, "end": 1}]},
            """has {"start": 0, "end": 1} in 'spans'. Expected spans such as [3, 7, "place"] """
            """or {"start": 3, "end": 7, "label": "place"}.""",
        ),
    ],
)
def test_json_errors(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    path = write(tmp_path, a_jsonl=rows({"tokens": ["a"], "tags": ["O"]}, record)) / "a.jsonl"
    assert fails(path) == f"ROOT:2 {message}"


def test_all_faults_of_a_json_file_are_counted(tmp_path: Path) -> None:
    good = rows({"tokens": ["a"], "tags": ["O"]})
    path = write(tmp_path, a_jsonl=good + "[1]\n" + good + "{]\n" + "{}\n") / "a.jsonl"
    message = fails(path)
    assert message.startswith("ROOT:2 is JSON, but not an object: [1] (2 more lines are wrong, too). Expected a record")
    write(tmp_path, a_jsonl=good + "{]\n")
    assert fails(path) == (
        "ROOT:2 is not JSON: Expecting property name enclosed in double quotes at character 2. "
        "Expected one JSON object a line."
    )


def test_folders(tmp_path: Path) -> None:
    root = write(tmp_path / "u", **{"x-ud-train_conllu": CONLLU, "x-ud-dev_conllu": CONLLU, "x-ud-test_conllu": CONLLU})
    write(root, LICENSE_txt="Do as you like.\n", **{"x-ud-train_txt": "don't go #\n", "stats_xml": "<x/>"})
    records = read(root)
    assert recognising(root) == ["tagged-text"]
    assert records.fields["split"].tolist() == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    # The sent_ids are not unique here.
    assert records.ids[0] == "x-ud-train.conllu:4"
    assert TaggedText.guess(root, None).data["split"] == {"by": "given"}
    root = write(tmp_path / "t", train_txt=CONLL, test_txt=CONLL, labels_txt="O\nB-org\n")
    assert recognising(root) == ["tagged-text"]
    guess = TaggedText.guess(root, None)
    assert guess.data["split"] == {"by": "given", "validation": 0.1}
    assert guess.count == 4
    root = write(tmp_path / "j", train_jsonl=rows({"tokens": ["a"], "tags": ["X"]}), dev_json="{}")
    assert recognising(root) == ["tagged-text"]
    assert read(root).fields["split"].tolist() == ["train"]
    root = write(tmp_path / "d", one_iob=CONLL, two_iob2=CONLL)
    assert read(root).ids == ["one.iob:1", "one.iob:4", "two.iob2:1", "two.iob2:4"]
    assert "split" not in read(root).fields
    write(root, test_iob=CONLL)
    assert fails(root) == (
        "the name of ROOT/one.iob says no split, where test.iob does. "
        "Expected a name with train, dev or test in it. hint: rename it, or move it away"
    )
    assert fails(write(tmp_path / "n", a_txt="prose\n")) == (
        "the folder ROOT has no files of tagged words. "
        "Expected CoNLL, CoNLL-U or JSONL files, named after train, validation and test if there are several. "
        "hint: data.source may also be a single file"
    )


@pytest.mark.parametrize(
    "content",
    [
        CONLL,
        CONLL.replace(" ", "\t").replace("\n", "\r\n"),
        "-DOCSTART- -X- O\n\n" + CONLL.replace(" ", " NNP "),
        "# sent 1\nthe DT\ndog NN\nbarks VBZ\n. .\n\nthe DT\ncat NN\nsleeps VBZ\n. .\n",
        CONLLU.replace("# newdoc id = d\n", "") * 3,
    ],
)
@pytest.mark.parametrize("ending", ["txt", "tsv"])
def test_columns_are_recognised_in_txt_and_tsv(tmp_path: Path, content: str, ending: str) -> None:
    write(tmp_path, **{f"a_{ending}": content})
    assert recognising(tmp_path / f"a.{ending}") == ["tagged-text"]
    assert recognising(tmp_path) == ["tagged-text"]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", "The sonde goes down.\n\nIt comes up.\n", "text-files"),
        ("a.txt", "hello world\ngood morning\n\nfoo bar\nbig sky\n", "text-files"),
        ("a.txt", "JOHN SMITH\nMARY BROWN\n\nJACK BLACK\nANN WHITE\n", "text-files"),
        ("a.txt", "1 0\n2 0\n\n1 1\n2 1\n3 1\n", "text-files"),  # blocks of numbers, as gnuplot reads them
        ("a.txt", "", "text-files"),
        ("a.tsv", "word\ttag\nEU\tB-org\nrejects\tO\n", "table"),
        ("a.tsv", "name\tclass\nant\tA\nbee\tB\n\ncow\tA\ndog\tB\n", "table"),
        ("a.jsonl", rows({"text": "a b", "label": "x"}), "table"),
        ("a.jsonl", rows({"text": "a b", "labels": ["x", "y"]}), "table"),
        ("a.jsonl", rows({"text": "a b", "labels": []}, {"text": "a", "labels": ["x"]}), "table"),
        ("a.jsonl", rows({"tokens": ["a", "b"], "label": 1}), "table"),
        ("a.jsonl", rows({"text": "a b", "spans": [], "label": 1}), "table"),
        ("a.jsonl", rows({"words": ["a", "b"], "tags": ["news"]}), "table"),
        ("a.jsonl", rows({"words": 3, "tags": 4}), "table"),
        ("a.jsonl", "no json\n", "table"),
    ],
)
def test_what_is_left_to_others(tmp_path: Path, name: str, content: str, kind: str) -> None:
    (tmp_path / name).write_text(content)
    assert recognising(tmp_path / name) == [kind]
    assert recognising(tmp_path) == [kind]


def test_a_long_file_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    row = {"tokens": ["a"] * 5, "tags": ["O"] * 5}
    write(tmp_path, a_jsonl=rows(*[row] * 2000), b_txt=CONLL * 2000)
    assert recognising(tmp_path / "a.jsonl") == recognising(tmp_path / "b.txt") == ["tagged-text"]


def guess_of(tmp_path: Path, *found: str) -> tuple[str, tuple[str, ...]]:
    content = "\n".join("".join(f"w\t{tag}\n" for tag in tags.split()) for tags in found)
    guess = TaggedText.guess(write(tmp_path, a_conll=content) / "a.conll", None)
    return guess.notes["target.field"], guess.warnings


def test_schemes_and_rare_tags(tmp_path: Path) -> None:
    assert guess_of(tmp_path, *["B-x I-x O B-y"] * 5) == ("4 tags in the BIO scheme, of 2 labels: x, y", ())
    assert guess_of(tmp_path, *["I-x I-x O"] * 5, "I-x B-x")[0] == "3 tags in the IOB1 scheme, of 1 label: x"
    assert guess_of(tmp_path, *["B-x I-x O B-x"] * 5, "O I-x")[1] == ("1 of 11 spans begin with I-, where BIO has B-",)
    assert guess_of(tmp_path, *["B-x I-x E-x O S-x"] * 5)[0] == "5 tags in the BIOES scheme, of 1 label: x"
    assert guess_of(tmp_path, *["B-x I-x L-x O U-x"] * 5)[0] == "5 tags in the BILOU scheme, of 1 label: x"
    assert guess_of(tmp_path, *["A B C D E F G O B-"] * 5)[0] == "9 tags: A, B, B-, C, D, E, ..."
    assert guess_of(tmp_path, *["A B"] * 5, "C", "D D")[1] == ("2 tags have fewer than 5 words: C (1), D (2)",)
    assert guess_of(tmp_path, "A A")[1] == ("all words have the tag 'A': there is nothing to learn",)


def test_partut(shared: Path) -> None:
    path = shared / "ud_english_partut"
    records = read(path)
    assert Counter(records.fields["split"]) == {"train": 1781, "validation": 156, "test": 153}
    assert records.ids[0] == "en_partut-ud-3"
    words, tags = records.fields["words"], records.fields["tags"]
    assert [len(each) for each in words] == [len(each) for each in tags]
    assert (words[0][:3], tags[0][:3]) == (["Distribution", "of", "this"], ["NOUN", "ADP", "DET"])
    guess = TaggedText.guess(path, None)
    assert guess.about == (
        "2,090 sentences of 49,634 words with 17 tags: ADJ, ADP, ADV, AUX, CCONJ, DET, INTJ, NOUN, NUM, PART, PRON, "
        "PROPN, PUNCT, SCONJ, SYM, VERB, X"
    )
    assert guess.inputs == {"text": {"kind": "text", "field": "words"}}
    assert guess.target == {"kind": "tags", "field": "tags"}
    assert guess.data["split"] == {"by": "given"}
    assert guess.notes["target.field"] == "17 tags: ADJ, ADP, ADV, AUX, CCONJ, DET, ..."
    assert guess.warnings == ()
