"""Sentences of tagged words in the shapes that people have them, read alike for training and for answering; entities."""

import itertools
import re
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks.entities import Entity, are_entities, entities, entity_scores
from throughtime.tasks.sentences import from_text, sentences, with_tags
from throughtime.tasks.source import Source

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
# # I-NP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""
CONLLU = (
    "# sent_id = 1\n1-2\tcannot\t_\t_\t_\t_\t_\t_\t_\t_\n1\tcan\tcan\tAUX\tMD\t_\t0\troot\t_\t_\n"
    "2\tnot\tnot\t_\tRB\tPolarity=Neg\t1\tadvmod\t_\t_\n2.1\t_\t_\t_\t_\t_\t_\t_\t_\t_\n\n"
    "# of no sentence\n\n1\tdog\t_\tNOUN\t_\t_\t_\t_\t_\tSpace=No\n"
)
NER = ["B-LOC", "B-MISC", "B-ORG", "B-PER", "I-PER", "O"]


def read(folder, content, column=None, *, tagged=True, name="f.txt", known=()):
    """The sentences, and what was said."""
    path = folder / name
    path.write_text(content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = list(sentences(Source.of(path), column, tagged=tagged, known=known))
    return found, [str(w.message).replace(f"{folder}/", "") for w in said]


def pairs(found):
    return [list(zip(s.words, s.tags, strict=True)) for s in found]


def written(found, tag="T", column=None):
    """The lines with `tag` for every word."""
    return "\n\n".join(with_tags(s, [tag] * len(s.words), column) for s in found)


# -- CoNLL-2003


@pytest.mark.parametrize("separator", [" ", "\t"])
@pytest.mark.parametrize(
    ("column", "tags"),
    [
        (None, ["B-ORG", "O", "B-MISC", "O"]),
        ("4", ["B-ORG", "O", "B-MISC", "O"]),
        ("ner", ["B-ORG", "O", "B-MISC", "O"]),
        ("2", ["NNP", "VBZ", "JJ", "#"]),
        ("Chunk", ["B-NP", "B-VP", "B-NP", "I-NP"]),
    ],
)
def test_conll_2003(tmp_path, column, tags, separator):
    content = CONLL_2003.replace(" ", separator)
    found, said = read(tmp_path, content, column)
    assert [s.words for s in found] == [["EU", "rejects", "German", "#"], ["Peter", "Blackburn"]]
    assert found[0].tags == tags and found[1].place(1).endswith("f.txt:9")
    assert said == ["f.txt: 1 lines -DOCSTART- are skipped: they part documents"]
    for tagged in (None, False):
        found, _ = read(tmp_path, content, column, tagged=tagged, known=NER)
        assert [s.words for s in found] == [[], ["EU", "rejects", "German", "#"], ["Peter", "Blackburn"]]
        assert found[1].tags == ([] if tagged is False else tags)
        after = [
            line if not line or line.startswith("-DOC") else f"{line}{separator}T" for line in content.splitlines()
        ]
        assert written(found).split("\n") == after, "every line is there, with one more column"


def test_columns_without_a_border_are_told_from_sentences_by_the_tags(tmp_path):
    content = CONLL_2003.split("\n\n", 1)[1]
    assert [s.words for s in read(tmp_path, content, tagged=None, known=NER)[0]] == [
        ["EU", "rejects", "German", "#"],
        ["Peter", "Blackburn"],
    ]
    plain = "I saw a saw\nyou saw a dog\n"  # four words each
    assert [s.words for s in read(tmp_path, plain, tagged=None, known=["NOUN", "VERB"])[0]] == [
        ["I", "saw", "a", "saw"],
        ["you", "saw", "a", "dog"],
    ]


@pytest.mark.parametrize(
    ("content", "column", "words"),
    [
        (CONLL_2003, "5", "f.txt with its 4 fields has no such column: unknown column '5'"),
        (CONLL_2003, "1", "unknown column '1'"),
        (CONLL_2003, "nre", "unknown column 'nre'; did you mean 'ner'?"),
        ("-DOCSTART-\n\na X\n" + "b X\n" * 20 + "c\n", None, "f.txt:24: 1 fields; a line has a word and its tag"),
        (CONLL_2003 + "one two\n", None, "f.txt:10: 2 fields, the first word has 4"),
        (
            "I saw a saw\n",
            None,
            "f.txt:1: 1 fields; a line has a word and its tag with a tab between them, or the 10 fields",
        ),
        ("I saw a saw\nyou saw\n", None, "f.txt:1: 1 fields; a line has a word and its tag"),
        ("I\tPRON\nsaw\n", None, "f.txt:2: 1 fields; a line has a word and its tag with a tab between them"),
        ("I\tPRON\nsaw\t\n", None, "f.txt:2: an empty field; a line has a word and its tag"),
        ("# nothing\n\n", None, "f.txt: no sentence in it"),
        ("", None, "f.txt: no sentence in it"),
    ],
)
def test_columns_that_cannot_be_read(tmp_path, content, column, words):
    with pytest.raises(UserError, match=re.escape(words)):
        read(tmp_path, content, column)


# -- a word and its tag

words = st.text(st.sampled_from("ab#1é.-"), min_size=1, max_size=4)
tagged_sentences = st.lists(
    st.lists(st.tuples(words, st.sampled_from(["NOUN", "B-X", "O"])), min_size=1, max_size=4), min_size=1, max_size=4
)


@quick
@given(table=tagged_sentences)
def test_two_columns_in_are_two_columns_out(table, tmp_path):
    content = "\n".join("".join(f"{w}\t{t}\n" for w, t in sentence) for sentence in table)
    if content.startswith("#"):
        content = "a\tO\n" + content
        table = [[("a", "O"), *table[0]], *table[1:]]
    assert pairs(read(tmp_path, content)[0]) == table
    known = ["NOUN", "B-X", "O"]
    found, _ = read(tmp_path, content, tagged=None, known=known)
    assert pairs(found) == table
    assert written(found) == re.sub(r"(?m)(.)$", r"\1\tT", content.rstrip("\n"))
    assert [s.tags for s in read(tmp_path, content, tagged=False, known=known)[0]] == [[] for _ in table]


@quick
@given(lines=st.lists(st.text(st.sampled_from("ab .'"), max_size=8), max_size=6))
def test_plain_lines_in_are_sentences_out(lines, tmp_path):
    (tmp_path / "f.txt").write_text("".join(f"{line}\n" for line in lines))
    for source in (Source.of(tmp_path / "f.txt"), Source.of(lines)):
        found = list(sentences(source, tagged=None, known=["NOUN"]))
        assert [s.words for s in found] == [from_text(line).words for line in lines]
        assert all(s.tags == [None] * len(s.words) for s in found)


def test_a_comment_and_a_word_that_is_a_sign(tmp_path):
    content = "# a comment\n#\tSYM\nno\tDET\n\n# another\n#1\tNOUN\n"
    found, _ = read(tmp_path, "I\tPRON\n\n" + content)
    assert pairs(found) == [[("I", "PRON")], [("#", "SYM"), ("no", "DET")], [("#1", "NOUN")]]


def test_numbered_words(tmp_path):
    """GermEval 2014: the number of a word, the word, two columns of tags."""
    content = "#\tsource [1]\n1\tIn\tO\tO\n2\tBerlin\tB-LOC\tO\n\n#\tsource\n1\tJa\tO\tO\n"
    assert pairs(read(tmp_path, content, "3")[0]) == [[("In", "O"), ("Berlin", "B-LOC")], [("Ja", "O")]]
    assert pairs(read(tmp_path, content)[0])[0][1] == ("Berlin", "O")
    assert pairs(read(tmp_path, "1\tNUM\n2\tNUM\n")[0]) == [[("1", "NUM"), ("2", "NUM")]]
    assert pairs(read(tmp_path, "1\tCD\tO\nman\tNN\tO\n")[0]) == [[("1", "O"), ("man", "O")]]


def test_texts_in_memory_are_sentences_or_conllu():
    (found,) = sentences(Source.of(["a\tb"]), tagged=None)
    assert found.words == ["a", "b"] and found.form == "plain"
    found = list(sentences(Source.of(CONLLU.split("\n")), tagged=None))
    assert [s.words for s in found] == [["can", "not"], [], ["dog"]]


# -- CoNLL-U


def test_what_is_not_given_in_conllu_is_none(tmp_path):
    assert pairs(read(tmp_path, CONLLU)[0]) == [[("can", "AUX"), ("not", None)], [("dog", "NOUN")]]
    assert pairs(read(tmp_path, CONLLU, "xpos")[0]) == [[("can", "MD"), ("not", "RB")], [("dog", None)]]
    assert pairs(read(tmp_path, CONLLU, "5")[0]) == pairs(read(tmp_path, CONLLU, "XPOS")[0])
    # of FEATS it is a value: a word that has none
    assert pairs(read(tmp_path, CONLLU, "feats")[0]) == [[("can", "_"), ("not", "Polarity=Neg")], [("dog", "_")]]


def test_a_column_that_is_nowhere_given(tmp_path):
    content = re.sub(r"\t(MD|RB)\t", "\t_\t", CONLLU)
    with pytest.raises(
        UserError, match=r"f.txt: the column xpos is nowhere given .*; filled are: lemma, upos, feats, head, deprel"
    ):
        read(tmp_path, content, "xpos")
    assert [s.words for s in read(tmp_path, content, "xpos", tagged=None)[0]] == [["can", "not"], [], ["dog"]]
    with pytest.raises(
        UserError, match=r"--data.column: CoNLL-U has no such column: unknown column 'xops'; did you mean 'xpos'"
    ):
        read(tmp_path, content, "xops")


def test_conllu_comes_back_with_its_tags(tmp_path):
    found, _ = read(tmp_path, CONLLU, tagged=None)
    now, then = written(found, "X", "upos").split("\n"), CONLLU.rstrip("\n").split("\n")
    assert len(now) == len(then)
    for a, b in zip(now, then, strict=True):
        fields = b.split("\t")
        if b[:1].isdigit() and fields[0].isdigit():
            fields[3] = "X"
        assert a == "\t".join(fields)


def test_plain_sentences_become_conllu(tmp_path):
    (found,), _ = read(tmp_path, "It's a well-known one.\n", tagged=None)
    assert found.words == ["It's", "a", "well-known", "one", "."]
    for column, at in ((None, 3), ("xpos", 4), ("ner", 3), ("4", 3)):
        lines = with_tags(found, ["T"] * 5, column).split("\n")
        assert lines[0] == "# text = It's a well-known one." and lines[1].split("\t")[at] == "T"
    assert with_tags(read(tmp_path, "\n", tagged=None)[0][0], [], None) == "# text = "


def test_bad_conllu_is_told_once_the_sentences_before_it_are_given(tmp_path):
    source = sentences(Source.of([*CONLLU.split("\n"), "", "1\tI"]), tagged=None)
    assert [next(source).words for _ in range(3)] == [["can", "not"], [], ["dog"]]
    with pytest.raises(UserError, match=r"<lines>:12: 2 fields; a line of CoNLL-U has 10"):
        next(source)


# -- entities


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),  # IOB2
        ("I-PER I-PER B-PER O I-LOC", [(0, 2, "PER"), (2, 3, "PER"), (4, 5, "LOC")]),  # IOB1
        ("B-PER E-PER S-LOC S-LOC O B-X I-X E-X", [(0, 2, "PER"), (2, 3, "LOC"), (3, 4, "LOC"), (5, 8, "X")]),  # BIOES
        ("B-PER L-PER U-LOC U-LOC", [(0, 2, "PER"), (2, 3, "LOC"), (3, 4, "LOC")]),  # BILOU
        ("B-PER I-LOC", [(0, 1, "PER"), (1, 2, "LOC")]),
        ("B-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("E-PER I-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("B-a-b I-a-b", [(0, 2, "a-b")]),
        ("B I O", [(0, 2, "")]),
        ("O O", []),
        ("", []),
    ],
)
def test_spans_of_entities(tags, found):
    assert entities(tags.split()) == [Entity(*span) for span in found]


@given(st.lists(st.tuples(st.sampled_from(["PER", "LOC", None]), st.integers(1, 3)), max_size=6))
def test_spans_written_in_every_scheme_come_back(blocks):
    """None: words outside, which here part the entities, so that IOB1 needs no B."""
    blocks = [b for block in blocks for b in (block, (None, 1))]
    spans, at = [], 0
    schemes = {"iob1": [], "iob2": [], "bioes": [], "bilou": []}
    for kind, length in blocks:
        if kind is None:
            for tags in schemes.values():
                tags += ["O"] * length
        else:
            spans.append(Entity(at, at + length, kind))
            schemes["iob1"] += [f"I-{kind}"] * length
            schemes["iob2"] += [f"B-{kind}"] + [f"I-{kind}"] * (length - 1)
            for name, end, alone in (("bioes", "E", "S"), ("bilou", "L", "U")):
                inner = [f"B-{kind}"] + [f"I-{kind}"] * (length - 2) + [f"{end}-{kind}"]
                schemes[name] += inner if length > 1 else [f"{alone}-{kind}"]
        at += length
    for tags in schemes.values():
        assert entities(tags) == spans


def test_f1_of_entities():
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC", None]]
    given = [["B-PER", "O", "O", "B-LOC"], ["B-ORG", "B-LOC", "I-LOC"]]
    scores = entity_scores(given, truth)
    # given: PER (0, 1) wrong, LOC right; ORG wrong, LOC right since the word that is not given is left out
    assert scores["precision"] == pytest.approx(2 / 4) and scores["recall"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(4 / 7) and scores["entities"] == 3
    assert scores["types"]["LOC"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "entities": 2}
    assert scores["types"]["ORG"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "entities": 0}
    assert entity_scores([["O"]], [["O"]])["f1"] == 0


def test_which_tags_are_of_entities():
    assert are_entities(NER) and are_entities(["I-PER", "O", None]) and are_entities(["S-A", "E-A"])
    for tags in (["NOUN", "O"], ["O"], [], ["B-PER", "NOUN"], ["X-PER", "O"], ["B", "I", "O"]):
        assert not are_entities(tags), tags
    assert all(are_entities([a, b]) for a, b in itertools.pairwise(NER[:4]))
