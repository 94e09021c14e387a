"""Random statements on the tables of agents, each the same for a scoped session and for the oracle.

The oracle is a plain session on a database in which nobody else has ever written: what a scoped session answers,
changes and inserts among the rows of others must be what the oracle does without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import (
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    table,
    text,
    union,
    union_all,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, aliased, joinedload, selectinload, subqueryload
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from tests.unit.agents.scope.models import (
    AGENTS,
    APPS,
    OWN,
    SharedNote,
    SharedThread,
    key,
)

SEEDED = [key(app, agent, n) for app in APPS for agent in AGENTS for n in (1, 2, 11, 12, 21, 22, 31)]
TITLES = ["t1", "t2", "t3"]


@dataclass(frozen=True)
class Op:
    """One thing that an agent does; `run(session, fill)` returns what it saw.

    `fill` holds the columns of the scope for the oracle, and nothing for the scoped session.
    """

    name: str
    about: Any
    run: Callable[[Session, dict[str, Any]], Any]

    def __repr__(self) -> str:
        try:
            return f"{self.name}: {self.about}"
        except SQLAlchemyError as error:
            # Not every statement that can be put together means something.
            return f"{self.name}: {type(error).__name__}"


# -- pieces of statements --------------------------------------------------------------------------------------


@st.composite
def sources(draw: st.DrawFn, models: list[Any], depth: int = 2) -> Any:
    """Return something with columns id and title to select from, in one of the ways to name it."""
    model = draw(st.sampled_from(models))
    core = model.__table__
    forms = ["model", "aliased", "table", "alias", "light", "lightalias"]
    if depth > 0:
        forms += ["subquery", "cte", "recursive", "entity"]
    form = draw(st.sampled_from(forms))
    if form == "model":
        return model
    if form == "aliased":
        return aliased(model)
    if form == "table":
        return core.c
    if form == "alias":
        return core.alias().c
    if form in ("light", "lightalias"):
        light = table(core.name, column("id"), column("title"))
        return light.c if form == "light" else light.alias().c
    if form == "recursive":
        return recursive(model)
    if form == "entity":
        return aliased(model, select(model).where(model.title == draw(st.sampled_from(TITLES))).subquery())
    inner = draw(selects(models, depth - 1))
    return (inner.subquery() if form != "cte" else inner.cte()).c


def recursive(model: Any) -> Any:
    first = select(model.id, model.title).where(model.title == "t1").cte(recursive=True)
    following = aliased(model)
    return first.union_all(
        select(following.id, following.title).join(first, following.id == first.c.id + 1)
    ).c


@st.composite
def conditions(draw: st.DrawFn, this: Any, models: list[Any], depth: int) -> Any:
    """Return a condition on `this`, which may bring another table into the statement."""
    kind = draw(
        st.sampled_from(["title", "id", "or", "text", "literal", "exists", "in", "scalar", "implicit"])
    )
    title = draw(st.sampled_from(TITLES))
    if kind == "title" or depth == 0:
        return this.title == title
    if kind == "id":
        return this.id >= draw(st.sampled_from(SEEDED))
    if kind == "or":
        return or_(this.title == title, this.id > 0)
    if kind == "text":
        return text("1 = 1 OR 1 = :one").bindparams(one=1)
    if kind == "literal":
        return literal_column("1 = 0 OR 1 = 1")
    other = draw(sources(models, depth - 1))
    if kind == "exists":
        return exists().where(other.title == this.title, other.id != this.id)
    if kind == "in":
        return this.id.in_(select(other.id))
    if kind == "scalar":
        return this.id <= select(func.max(other.id)).scalar_subquery()
    return this.title == other.title


@st.composite
def selects(draw: st.DrawFn, models: list[Any], depth: int = 2) -> Any:
    """Return a SELECT of two columns, id and title."""
    this = draw(sources(models, depth))
    statement = select(this.id.label("id"), this.title.label("title"))
    shape = draw(st.sampled_from(["plain", "join", "outer", "union", "distinct", "correlated", "nested"]))
    if depth > 0 and shape in ("join", "outer", "nested"):
        other = draw(sources(models, depth - 1))
        statement = joined(statement, this, other, outer=shape != "join")
        if shape == "nested":
            last = draw(sources(models, 0))
            statement = statement.outerjoin(entity(last), last.title == other.title)
            other = last
        statement = statement.with_only_columns(other.id.label("id"), this.title.label("title"))
    elif shape == "correlated":
        other = draw(sources(models, 0))
        most = select(func.max(other.id)).where(other.title == this.title).scalar_subquery()
        statement = statement.with_only_columns(most.label("id"), this.title.label("title"))
    if draw(st.booleans()):
        statement = statement.where(draw(conditions(this, models, depth)))
    if shape == "distinct":
        statement = statement.distinct()
    if shape == "union" and depth > 0:
        other = draw(selects(models, depth - 1))
        return (
            draw(st.sampled_from([union, union_all]))(statement, select(other.subquery())).subquery().select()
        )
    return statement


def joined(statement: Any, this: Any, other: Any, *, outer: bool) -> Any:
    target = entity(other)
    return statement.join_from(entity(this), target, other.title == this.title, isouter=outer)


def entity(source: Any) -> Any:
    """Return what a source's columns belong to: the class itself, or what a collection of columns is of."""
    return source.id.table if isinstance(source, ReadOnlyColumnCollection) else source


# -- what reads ------------------------------------------------------------------------------------------------


@st.composite
def reading(draw: st.DrawFn, models: list[Any]) -> Op:
    kind = draw(st.sampled_from(["select", "count", "group", "order", "limit", "stream"]))
    statement = draw(selects(models))
    inner = statement.subquery()
    if kind == "count":
        statement = select(func.count(), func.max(inner.c.id))
    elif kind == "group":
        other = draw(sources(models, 0))
        bound = select(func.count(other.id)).scalar_subquery()
        statement = (
            select(inner.c.title, func.count(inner.c.id))
            .group_by(inner.c.title)
            .having(func.count() <= bound)
        )
    elif kind == "order":
        other = draw(sources(models, 0))
        first = select(func.min(other.id)).where(other.title == inner.c.title).scalar_subquery()
        statement = select(inner.c.id).order_by(first, inner.c.id).limit(3)
    elif kind == "limit":
        statement = select(inner.c.id).order_by(inner.c.id, inner.c.title).limit(2)

    def run(session: Session, _fill: dict[str, Any]) -> Any:
        options = {"yield_per": 2} if kind == "stream" else {}
        return seen(session.execute(statement, execution_options=options))

    return Op(kind, statement, run)


@st.composite
def loading(draw: st.DrawFn) -> Op:
    kind = draw(
        st.sampled_from(
            ["get", "refresh", "lazy", "selectin", "joined", "subquery", "relation", "outer", "merge"]
        )
    )
    option = {"selectin": selectinload, "joined": joinedload, "subquery": subqueryload}
    wanted = draw(st.sampled_from(SEEDED))
    title = draw(st.sampled_from(TITLES))

    def notes(session: Session, fill: dict[str, Any]) -> Any:
        statement = select(SharedNote).where(SharedNote.title == title)
        if kind in option:
            return [
                shape(note) for note in session.scalars(statement.options(option[kind](SharedNote.thread)))
            ]
        return [shape(note) for note in session.scalars(statement)]

    def threads(session: Session, fill: dict[str, Any]) -> Any:
        statement = select(SharedThread).order_by(SharedThread.id).limit(2)
        if kind in option:
            statement = statement.options(option[kind](SharedThread.notes))
        return [
            (thread.id, sorted(note.id for note in thread.notes))
            for thread in session.scalars(statement).unique()
        ]

    def by_key(session: Session, _fill: dict[str, Any]) -> Any:
        found = [session.get(model, wanted) for model in (SharedThread, SharedNote)]
        if kind == "refresh":
            for row in filter(None, found):
                session.refresh(row)
        return [None if row is None else (row.id, row.title) for row in found]

    def relation(session: Session, _fill: dict[str, Any]) -> Any:
        other = aliased(SharedNote)
        statement = select(SharedThread.id, other.id).join(
            SharedThread.notes.of_type(other), isouter=kind == "outer"
        )
        has = select(SharedNote.id).where(SharedNote.thread.has(SharedThread.title == title))
        lacks = select(SharedThread.id).where(~SharedThread.notes.any(SharedNote.title == title))
        return [seen(session.execute(each)) for each in (statement, has, lacks)]

    def merge(session: Session, fill: dict[str, Any]) -> Any:
        own = session.scalars(select(SharedThread.id).order_by(SharedThread.id)).all()
        merged = session.merge(SharedThread(id=own[0], title=title)) if own else None
        session.flush()
        return None if merged is None else (merged.id, merged.title)

    run = {
        "get": by_key, "refresh": by_key, "relation": relation, "outer": relation, "merge": merge,
    }.get(kind) or draw(st.sampled_from([notes, threads]))  # fmt: skip
    return Op(f"{kind} {run.__name__}", (wanted, title), run)


# -- what writes -----------------------------------------------------------------------------------------------


@st.composite
def changing(draw: st.DrawFn, models: list[Any]) -> Op:
    model = draw(st.sampled_from(models))
    this = draw(st.sampled_from([model, model.__table__]))
    columns = model if this is model else model.__table__.c
    kind = draw(st.sampled_from(["update", "delete"]))
    statement = update(this).values(title="changed") if kind == "update" else delete(this)
    if draw(st.booleans()):
        statement = statement.where(draw(conditions(columns, models, 2)))
    if kind == "update" and draw(st.booleans()):
        other = draw(sources(models, 1))
        most = select(func.max(other.title)).where(other.id < columns.id).scalar_subquery()
        statement = update(this).values(title=func.coalesce(most, "none"))

    def run(session: Session, _fill: dict[str, Any]) -> Any:
        return session.execute(statement, execution_options={"synchronize_session": False}).rowcount

    return Op(kind, statement, run)


@st.composite
def changing_rows(draw: st.DrawFn, models: list[Any]) -> Op:
    model = draw(st.sampled_from(models))
    kind = draw(st.sampled_from(["flush", "delete", "bulk", "pair"]))
    ids = draw(st.lists(st.sampled_from(SEEDED), min_size=1, max_size=2, unique=True))
    moved = draw(st.integers(100_000, 900_000))

    def run(session: Session, _fill: dict[str, Any]) -> Any:
        if kind == "bulk":
            session.execute(update(model), [{"id": each, "title": "bulk"} for each in ids])
            return None
        rows = session.scalars(select(model).where(model.id.in_(ids))).all()
        for row in rows:
            if kind == "delete":
                session.delete(row)
            elif kind == "pair" and isinstance(row, SharedThread):
                row.notes.append(SharedNote(id=row.id + moved, **fill_of(SharedNote, _fill)))
            else:
                row.title = "flushed"
        session.flush()
        return len(rows)

    return Op(f"{kind} {model.__name__}", ids, run)


@st.composite
def adding(draw: st.DrawFn, models: list[Any]) -> Op:
    model = draw(st.sampled_from(models))
    kind = draw(st.sampled_from(["add", "bulk", "values", "many", "core", "coremany", "select", "union"]))
    first = draw(st.integers(10_000, 90_000))
    source = draw(selects(models, 1))
    core = model.__table__

    def run(session: Session, fill: dict[str, Any]) -> Any:
        attributes, names = fill_of(model, fill), fill_of(core, fill)
        rows = [{"id": first + n, "title": "added"} for n in range(3)]
        if kind == "add":
            session.add_all(model(**row, **attributes) for row in rows)
            session.flush()
        elif kind == "bulk":
            session.execute(insert(model), [row | attributes for row in rows])
        elif kind == "values":
            session.execute(insert(model).values(**rows[0], **attributes))
        elif kind == "many":
            session.execute(insert(model).values([row | attributes for row in rows]))
        elif kind == "core":
            session.execute(insert(core), [row | names for row in rows])
        elif kind == "coremany":
            session.execute(insert(core).values([row | names for row in rows]))
        else:
            session.execute(from_select(core, source, names, kind))
        return None

    return Op(f"insert {kind} {model.__name__} {first}", source, run)


def from_select(core: Any, source: Any, names: dict[str, Any], kind: str) -> Any:
    inner = source.subquery()
    # One row for an id: a join may have found it more than once.
    rows = select(
        (func.min(inner.c.id) + 1_000_000).label("id"), func.coalesce(inner.c.title, "-").label("title")
    )
    rows = rows.where(inner.c.id.is_not(None)).group_by(inner.c.title)
    if kind == "union":
        other = select((func.min(inner.c.id) + 2_000_000).label("id"), literal("u").label("title"))
        whole = union_all(rows, other.where(inner.c.id.is_not(None)).having(func.count() > 0))
        if not names:
            return insert(core).from_select(["id", "title"], whole)
        rows = select(*whole.subquery().c)
    for value in names.values():
        rows = rows.add_columns(literal(value))
    return insert(core).from_select(["id", "title", *names], rows, include_defaults=False)


def fill_of(model: Any, fill: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of the scope under the names that `model` has for them."""
    if not fill:
        return {}
    if model in OWN.values() or model in [own.__table__ for own in OWN.values()]:
        return {"app_id": fill["app_id"]}
    if model is SharedThread:
        return {"tenant": fill["app_id"], "agent_name": fill["agent_name"]}
    return fill


def shape(note: SharedNote) -> Any:
    return (note.id, note.thread_id is None, None if note.thread is None else note.thread.id)


def seen(result: Any) -> list[Any]:
    return sorted((tuple(row) for row in result), key=repr)


def operations(agent: str) -> st.SearchStrategy[list[Op]]:
    """Return what an agent may do in one unit of work."""
    models = [SharedThread, SharedNote, OWN[agent]]
    one = st.one_of(
        reading(models), reading(models), loading(), changing(models), changing_rows(models), adding(models)
    )
    return st.lists(one, min_size=1, max_size=4)
