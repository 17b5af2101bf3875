"""The tables of a file of sessions, made or brought up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from throughtime.errors import UserError

FORMAT = 2  # of the file; one with a higher number is from a newer version
BEGINNINGS = "create table beginnings (session text primary key, about blob not null) without rowid"
TABLES = f"""
create table about (name text primary key, value text not null) without rowid;
create table sessions (
    id text primary key, owner text not null, model text not null, time integer not null, folded integer not null,
    made real not null, touched real not null
) without rowid;
create index owned on sessions (owner, id);
create table inputs (session text, first integer, count integer not null, rows blob not null, primary key (session, first))
    without rowid;
create table states (session text, time integer, put integer not null, state blob not null, primary key (session, time, put))
    without rowid;
{BEGINNINGS};
create table recent (number integer primary key, session text not null, first integer not null, count integer not null,
    rows blob not null);
"""
# How many sessions an owner has, which is asked for each that is made: to count them anew would soon take longer than all else. The
# file keeps the numbers itself, whichever process writes, of this version or one before it.
COUNTS = (
    "create table counts (owner text primary key, number integer not null) without rowid",
    "insert into counts select owner, count(*) from sessions group by owner",
    "create trigger counted_in after insert on sessions begin insert into counts values (new.owner, 1) "
    "on conflict (owner) do update set number = number + 1; end",
    "create trigger counted_out after delete on sessions begin update counts set number = number - 1 where owner = old.owner; end",
)


def prepare(file: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file, or add what one of an older version lacks. In a transaction.

    Raises: UserError where it is a file of something else, or from a newer version.
    """
    found = {name for (name,) in file.execute("select name from sqlite_master where type = 'table'")}
    if not found:
        for statement in TABLES.split(";"):
            file.execute(statement)
        file.execute("insert into about values ('format', ?)", (str(FORMAT),))
    elif "about" not in found or "sessions" not in found:
        raise UserError(f"{path}: is a database of something else; name another file")
    else:
        ((number,),) = file.execute("select value from about where name = 'format'")
        if int(number) > FORMAT:
            raise UserError(f"{path}: format {number} is from a newer throughtime; upgrade it")
        if int(number) < FORMAT:  # 1: without beginnings
            file.execute(BEGINNINGS)
            file.execute("update about set value = ? where name = 'format'", (str(FORMAT),))
    if "counts" not in found:
        for statement in COUNTS:
            file.execute(statement)
