"""Labelled texts in the shapes that people have them: what is read, what is left out, what is refused, and that it is said."""

import csv
import io
import json
import re
import string
import warnings

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks.source import Source
from throughtime.tasks.tables import Columns, Labelled, one_field, rows

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


ANY = Columns()


def read(folder, name, content, columns=ANY, labelled=True):
    """(text, label) of each row, and what was said."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = [(row.text, row.label) for row in rows(Source.of(path), columns, labelled=labelled)]
    return found, [str(w.message).replace(str(folder) + "/", "") for w in said]


# -- what has been written comes back

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).map(str.strip).filter(bool)
cells = st.text(st.sampled_from("ab,;|\t\"'\n é漢\\"), min_size=1, max_size=12).filter(
    lambda s: s.strip() and "\\" not in s
)
tables = st.lists(
    st.tuples(cells, st.sampled_from(["pos", "neg", "so, so", 'a "b"', "tab\tbed"])), min_size=1, max_size=8
)


@quick
@given(table=tables, delimiter=st.sampled_from(",;\t|"), name=st.sampled_from(["t.csv", "t.tsv", "t.txt"]))
def test_a_table_that_csv_has_written_comes_back(table, delimiter, name, tmp_path):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(
        [("text", "label"), *table]
    )
    assert read(tmp_path, name, file.getvalue()) == (table, [])


@quick
@given(table=tables, indent=st.sampled_from([None, 1]), form=st.sampled_from(["array", "lines"]))
def test_a_table_that_json_has_written_comes_back(table, indent, form, tmp_path):
    objects = [{"id": i, "text": text, "label": label} for i, (text, label) in enumerate(table)]
    whole = [objects] if form == "array" else objects
    content = "\n".join(json.dumps(value, indent=indent, ensure_ascii=False) for value in whole)
    for name in ("t.json", "t.jsonl", *(["t.txt"] if form == "array" or indent is None else [])):
        assert read(tmp_path, name, content) == (table, [])


@quick
@given(lines=st.lists(st.text(st.sampled_from("ab. é"), max_size=9), max_size=9))
def test_plain_lines_in_are_items_out(lines, tmp_path):
    (tmp_path / "t.txt").write_text("".join(line + "\n" for line in lines))
    for source in (Source.of(tmp_path / "t.txt"), Source.of(lines)):
        assert [row.text for row in rows(source, labelled=None)] == lines


@quick
@given(
    table=st.lists(st.tuples(st.sampled_from(["", "x y", " "]), st.sampled_from(["", "pos"])), min_size=1, max_size=9)
)
def test_rows_in_are_items_out_in_answering_whatever_is_empty(table, tmp_path):
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([("text", "label"), *table])
    assume(any(text.strip() or label for text, label in table))
    found, _ = read(tmp_path, "t.csv", file.getvalue(), labelled=None)
    assert [(text.strip(), label) for text, label in found] == [(text.strip(), label or None) for text, label in table]


# -- files that people have

GOOD = [("I came, I saw", "pos"), ("dull", "neg")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text;label\nI came, I saw;pos\ndull;neg\n"),
        ("a.csv", 'label|text\npos|"I came, I saw"\nneg|dull\n'),
        ("a.csv", "text\tlabel\nI came, I saw\tpos\ndull\tneg\n"),
        ("a.csv", "\ufefftext;label\r\nI came, I saw;pos\r\ndull;neg\r\n"),
        ("a.csv", "sep=;\ntext;label\nI came, I saw;pos\ndull;neg\n"),
        ("a.csv", 'text, label\n"I came, I saw", pos\ndull, neg\n'),
        ("a.csv", 'label, text\npos, "I came, I saw"\nneg, dull\n'),
        ("a.csv", 'text,label,x,x\n"I came, I saw",pos,,\ndull,neg,1,2\n'),  # two names that are not asked for
        ("a.csv", "text;label\rI came, I saw;pos\rdull;neg\r"),
        ("a.csv", '\n\n"text","label"\n"I came, I saw","pos"\n\ndull,neg\n'),
        ("a.csv", ',text,label\n0,"I came, I saw",pos\n1,dull,neg\n'),  # an index without a name, as pandas writes it
        ("a.csv", 'text,label,,\n"I came, I saw",pos,,\ndull,neg,,\n'),  # columns that a spreadsheet left
        ("a.tsv", "id\tReview \tSentiment\n1\tI came, I saw\tpos\n2\tdull\tneg\n"),
        ("a.txt", "text\tlabel\nI came, I saw\tpos\ndull\tneg\n"),
        (
            "a.json",
            '[\n  {\n    "text": "I came, I saw",\n    "label": "pos"\n  },\n  {"text": "dull", "label": "neg"}\n]\n',
        ),
        ("a.json", '{"text": "I came, I saw", "label": "pos"}\n{"text": "dull", "label": "neg"}\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_shapes_of_a_labelled_table(tmp_path, name, content, encoding):
    content = content.encode(encoding if not content.startswith("\ufeff") else "utf-8")
    assert read(tmp_path, name, content) == (GOOD, [])
    assert read(tmp_path, name, content, labelled=None) == (GOOD, []) or name == "a.csv"
    found, said = read(tmp_path, name, content, labelled=False)
    assert [f for f in found if f[0]] == [(text, None) for text, _ in GOOD] and not said


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('text\tlabel\n"over two\nlines"\tpos\n', "over two\nlines"),
        ('text\tlabel\n"she said ""no"" and\tleft"\tpos\n', 'she said "no" and\tleft'),
        ('text\tlabel\nshe said "no"\tpos\n', 'she said "no"'),
        ('text\tlabel\n"no" she said\tpos\n', '"no" she said'),  # no quoted field: the quote is a quote
        ('text\tlabel\n"no she said\tpos\n', '"no she said'),
    ],
)
def test_quotes_between_tabs(tmp_path, content, text):
    assert read(tmp_path, "a.tsv", content) == ([(text, "pos")], [])


def test_quotes_with_backslashes(tmp_path):
    content = 'text,label\n"she said \\"no\\", and left",pos\n'
    assert read(tmp_path, "a.csv", content) == ([('she said "no", and left', "pos")], [])


def test_windows_1252(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\ncafé – naïve,pos\n".encode("cp1252"))
    assert [row.text for row in rows(Source.of(path, "windows-1252"), labelled=True)] == ["café – naïve"]
    with pytest.raises(UserError, match="is not UTF-8; if it is Windows-1252, which makes 'café' of it"):
        list(rows(Source.of(path), labelled=True))


@pytest.mark.parametrize(
    ("content", "found", "said"),
    [
        (  # Sentiment140
            '"0","1467810369","Mon Apr 06","NO_QUERY","bob","is upset that he can\'t"\n'
            '"4","1467810672","Mon Apr 06","NO_QUERY","zoe","I love this a whole lot"\n'
            '"0","1467810917","Mon Apr 07","NO_QUERY","bob","my whole body feels itchy"\n',
            [("is upset that he can't", "0"), ("I love this a whole lot", "4"), ("my whole body feels itchy", "0")],
            None,
        ),
        (  # AG News
            '"3","Wall St. Bears","Short-sellers are seeing green again"\n"4","Chips","A new chip is very much faster"\n'
            '"3","Oil","Oil prices soar to an all-time record"\n',
            [
                ("Short-sellers are seeing green again", "3"),
                ("A new chip is very much faster", "4"),
                ("Oil prices soar to an all-time record", "3"),
            ],
            "a.csv: has no header: column 3 is read as the text and column 1 as the label (--data.text-column names another)",
        ),
        (
            "good film,pos\nbad film,neg\nfine film,pos\n",
            [("good film", "pos"), ("bad film", "neg"), ("fine film", "pos")],
            "a.csv: has no header: column 1 is read as the text and column 2 as the label (--data.text-column names another)",
        ),
    ],
)
def test_a_table_without_a_header(tmp_path, content, found, said):
    if said is None:  # the dates and the names recur too: which is the label cannot be told
        with pytest.raises(UserError, match=r"a.csv:1: no column for the label; there are 1, 2, 3, 4, 5, 6: name one"):
            read(tmp_path, "a.csv", content)
        assert read(tmp_path, "a.csv", content, Columns(label="1", text="6")) == (found, [])
        return
    assert read(tmp_path, "a.csv", content) == (found, [said])
    answering = Columns(trained=tuple(re.findall(r"column (\d)", said)))
    assert read(tmp_path, "a.csv", content, answering, labelled=None) == (found, [])
    texts = read(tmp_path, "a.csv", content, labelled=None)[0]
    assert [text for text, _ in texts] == [text for text, _ in found], "no row is taken for a header"


def test_what_is_no_header(tmp_path):
    assert read(tmp_path, "a.csv", "1,good film\n2,bad film\n", labelled=None)[0] == [
        ("good film", None),
        ("bad film", None),
    ]
    found = read(tmp_path, "a.csv", "v1,v2\nham,go\nspam,win\n", Columns(text="2", label="1"))
    assert found == ([("go", "ham"), ("win", "spam")], ["a.csv:1: read as the names of the columns: v1, v2"])
    content = "great|good,pos\nbad|dull,neg\nfine|ok,pos\n"  # two delimiters that fit alike: the comma
    assert read(tmp_path, "a.csv", content)[0] == [("great|good", "pos"), ("bad|dull", "neg"), ("fine|ok", "pos")]


def test_text_files_with_tabs_are_the_tables_that_training_took_them_for(tmp_path):
    content = "pos\tgood film\nneg\tbad film\npos\tfine\n"
    found = [("good film", "pos"), ("bad film", "neg"), ("fine", "pos")]
    (trained, said) = read(tmp_path, "a.txt", content)
    assert trained == found and "has no header" in said[0]
    assert read(tmp_path, "a.txt", content, Columns(trained=("2", "1")), labelled=None) == (found, [])
    commas = "good film,x\nbad film,y\n"
    assert read(tmp_path, "a.txt", commas, Columns(trained=("1", "2")), labelled=None)[0] == [
        ("good film", "x"),
        ("bad film", "y"),
    ]
    assert read(tmp_path, "a.txt", commas, labelled=None)[0] == [("good film,x", None), ("bad film,y", None)]
    plain = "a line, with a comma\nanother\n\nthe message, text, and label\n"
    lines = [(line, None) for line in plain.splitlines()]
    assert read(tmp_path, "a.txt", plain, Columns(trained=("text", "label")), labelled=None) == (lines, [])


def test_a_label_of_something_else_is_no_gold_label(tmp_path):
    content = "text,rating\nfine,5\n"
    assert read(tmp_path, "a.csv", content, Columns(trained=("text", "sentiment")), labelled=None) == (
        [("fine", None)],
        [],
    )
    assert read(tmp_path, "a.csv", content, Columns(trained=("text", "rating")), labelled=None) == ([("fine", "5")], [])
    assert read(tmp_path, "a.csv", content, labelled=None) == ([("fine", "5")], [])


def test_columns_that_were_counted_are_found_by_name_where_there_are_names(tmp_path):
    content = "text,label\nfine,x\ndull,y\n"
    found = [("fine", "x"), ("dull", "y")]
    assert read(tmp_path, "a.csv", content, Columns(trained=("2", "1")))[0] == found
    assert read(tmp_path, "a.csv", content, Columns(trained=("2", "1")), labelled=None)[0] == [
        (text, None) for text, _ in found
    ]


def test_the_columns_that_were_read_are_told(tmp_path):
    (tmp_path / "a.csv").write_text("Review,Stars,id\nfine,5,1\n")
    (row,) = rows(Source.of(tmp_path / "a.csv"), Columns(label="Stars"), labelled=True)
    assert row == Labelled("fine", "5", f"{tmp_path}/a.csv:2", ("Review", "Stars"))


def test_labels_of_json_are_as_they_are_written(tmp_path):
    content = "\n".join(json.dumps({"text": "x", "label": label}) for label in (True, False, 1, 1.5, "True"))
    assert [label for _, label in read(tmp_path, "a.jsonl", content)[0]] == ["true", "false", "1", "1.5", "True"]


def test_a_label_with_a_tab_or_a_line_end_is_one_field_of_plain_output(tmp_path):
    ((_, label),), _ = read(tmp_path, "a.jsonl", json.dumps({"text": "x", "label": "a\tb\nc\\n"}))
    assert label == "a\tb\nc\\n"
    assert one_field(label) == "a\\tb\\nc\\n"


# -- what is left out, and what is refused


def test_rows_without_a_text_or_a_label_are_left_out_and_said(tmp_path):
    content = "text,label\na,x\n,y\nb,\n\n c ,z\n"
    assert read(tmp_path, "a.csv", content) == (
        [("a", "x"), (" c ", "z")],
        ["a.csv:3: no text; 2 rows without a text or a label are left out"],
    )
    assert read(tmp_path, "a.csv", "text,label\na,x\nb,\n")[1] == ["a.csv:3: no label; the row is left out"]
    answers = [("a", "x"), ("", "y"), ("b", None), ("", None), (" c ", "z")]
    assert read(tmp_path, "a.csv", content, labelled=None) == (answers, [])
    with pytest.raises(UserError, match=r"a.csv: no labelled text in it"):
        read(tmp_path, "a.csv", "text,label\n,x\nb,\n")


@pytest.mark.parametrize(
    ("name", "content", "columns", "words"),
    [
        (
            "a.csv",
            "text;label\nx;y;z\n",
            Columns(),
            "a.csv:2: 3 fields, the first line has 2; put a field with a semicolon",
        ),
        ("a.csv", 'text,label\n"x,y\n', Columns(), "a.csv:2: not CSV: unexpected end of data"),
        ("a.csv", 'text,label\na,b\n"x" z,y\n', Columns(), "a.csv:3: not CSV: ',' expected after '\"'"),
        (
            "a.csv",
            "v1,v2,,\nham,x,,\n",
            Columns(),
            "no column for the text; there are v1, v2, 3, 4: name one by --data.text",
        ),
        ("a.csv", "text,label\nx,y\n", Columns(delimiter="tab"), "--data.delimiter: there is no 'tab' in"),
        (
            "a.csv",
            "text,label\nx,y\n",
            Columns(delimiter="::"),
            "--data.delimiter: got '::'; it takes one sign, or comma",
        ),
        ("a.csv", "text,label\nx,y\n", Columns(text="txt"), "unknown column 'txt'; did you mean 'text'?"),
        ("a.csv", "text,label\nx,y\n", Columns(text="3"), "unknown column '3'"),
        (
            "a.json",
            '[{"text": "a"}, {"text": "b" "label": 2}]',
            Columns(),
            "a.json:1: not JSON: Expecting ',' delimiter",
        ),
        ("a.json", '[{"text": "a", "label": 1},\n', Columns(), "a.json:2: not JSON: the array does not end"),
        (
            "a.json",
            '[{"text": "a", "label": 1}\n{"text"',
            Columns(),
            "a.json:2: not JSON: after an item of an array stands",
        ),
        ("a.json", '[{"text": "a", "label": 1}]\n[', Columns(), "a.json:2: not JSON: something stands after the array"),
        ("a.json", "[1, 2]", Columns(), "a.json:1: an item is a JSON object, got int"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"text": \n',
            Columns(),
            "a.jsonl:2: not JSON: Expecting value, line 3",
        ),
        ("a.jsonl", "[" * 100_000, Columns(), "a.jsonl:1: not JSON"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, content, columns, words):
    with pytest.raises(UserError, match=re.escape(words)) as error:
        read(tmp_path, name, content, columns)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [":", "tab", "\\t", "\t", "Semicolon"])
def test_a_delimiter_that_is_named(tmp_path, given):
    sign = {":": ":", "Semicolon": ";"}.get(given, "\t")
    assert read(tmp_path, "a.txt", f"text{sign}label\nx{sign}y\n", Columns(delimiter=given)) == ([("x", "y")], [])


def test_folders(tmp_path):
    for name, text in (
        ("pos/1.txt", "good\nfilm"),
        ("pos/more/2.txt", "fine"),
        ("neg/1.txt", "bad"),
        ("neg/2.txt", ""),
    ):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text(text)
    found = [("bad", "neg"), ("", "neg"), ("good film", "pos"), ("fine", "pos")]
    assert [(r.text, r.label) for r in rows(Source.of(tmp_path / "d"), labelled=None)] == found
    with pytest.warns(UserWarning, match=r"neg/2.txt: no text; the row is left out"):
        assert [r.text for r in rows(Source.of(tmp_path / "d"), labelled=True)] == ["bad", "good film", "fine"]
    alone = Source.of(tmp_path / "d" / "neg")
    assert [(r.text, r.label) for r in rows(alone, labelled=None)] == [("bad", None), ("", None)]
    with pytest.raises(UserError, match="no labelled text in it"):
        list(rows(Source.of(tmp_path / "d" / "neg"), labelled=True))


def test_degenerate_tables(tmp_path):
    same = "text,label\n" + "a,x\n" * 50
    assert read(tmp_path, "a.csv", same)[0] == [("a", "x")] * 50
    assert read(tmp_path, "a.csv", "text,label\n?!,...\n")[0] == [("?!", "...")]
    assert read(tmp_path, "a.csv", "a,x\n" * 50)[0] == [("a", "x")] * 50, "no header, one label"
    with pytest.raises(UserError, match="is empty"):
        read(tmp_path, "a.csv", "\n \n")
    with pytest.raises(UserError, match="no labelled text in it"):
        read(tmp_path, "a.json", "[]")
    assert read(tmp_path, "a.txt", string.punctuation + "\n", labelled=None) == ([(string.punctuation, None)], [])
