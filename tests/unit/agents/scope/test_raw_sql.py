from __future__ import annotations

import pytest

from chalicelib.agents.scope import raw_sql
from chalicelib.agents.scope.access import ScopeViolation

MINE = "app_id = :app_id AND agent_name = :agent_name"


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("SELECT 1", []),
        ("created_at DESC", []),
        ("title = 'it''s; -- no comment' AND id = 1", []),
        (f"SELECT id FROM agentflow_shared_note WHERE {MINE}", ["agentflow_shared_note"]),
        (f"SELECT id FROM `agentflow_shared_note` n WHERE n.{MINE.replace('agent_name =', 'n.agent_name =')}",
         ["agentflow_shared_note"]),
        ("SELECT id FROM agentflow_a_own WHERE :app_id = app_id", ["agentflow_a_own"]),
        (f"SELECT id FROM agentflow_shared_note WHERE {MINE} AND (id = 1 OR id = 2) FOR UPDATE",
         ["agentflow_shared_note"]),
        (f"SELECT REPLACE(title, 'a', 'b') FROM agentflow_shared_note WHERE {MINE}", ["agentflow_shared_note"]),
        (f"WITH n AS (SELECT id FROM agentflow_shared_note WHERE {MINE}) SELECT id FROM n", ["agentflow_shared_note"]),
        ("WITH n (id) AS (SELECT id FROM agentflow_a_own WHERE app_id = :app_id) SELECT id FROM n",
         ["agentflow_a_own"]),
        ("SELECT a.id FROM agentflow_a_own a JOIN agentflow_a_own b ON a.id = b.id AND b.app_id = :app_id "
         "WHERE a.app_id = :app_id AND a.title IS NOT NULL AND a.id BETWEEN 1 AND 5 GROUP BY a.id",
         ["agentflow_a_own"]),
        ("SELECT x.value FROM json_each(:v) x", []),
    ],
)  # fmt: skip
def test_the_tables_of_a_text_that_carries_its_criteria_are_found(text: str, tables: list[str]) -> None:
    assert raw_sql.read(text, statement=text.startswith(("SELECT", "WITH"))) == frozenset(tables)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SELECT 1 -- 2", "no comments"),
        ("SELECT 1 # 2", "no comments"),
        ("SELECT 1 /* 2 */", "no comments"),
        ("SELECT /*! 1 */ 1", "no comments"),
        ("SELECT 1; SELECT 2", "no second statement"),
        (r"SELECT 'a\' OR 1 = 1 OR '1'", "no backslash"),
        (r'SELECT "a\" OR 1 = 1 OR "', "no comments"),
        ("SELECT 'open", "may not hold"),
        ("1 = 1) OR (1 = 1", "closes a parenthesis"),
        ("(1 = 1", "leaves a parenthesis open"),
        ("SELECT name FROM app_credential", "no access to the table app_credential"),
        ("SELECT name FROM t_plugin p, app_credential", "no access to the table t_plugin"),
        (f"SELECT 1 FROM agentflow_shared_note n, app_credential WHERE {MINE}", "app_credential"),
        (f"SELECT 1 FROM (agentflow_shared_note n JOIN app_credential) WHERE {MINE}", "app_credential"),
        (f"SELECT 1 FROM agentflow_shared_note WHERE {MINE} UNION SELECT secret FROM app_credential", "app_credential"),
        ("SELECT (SELECT max(id) FROM (SELECT id FROM app_credential) x)", "app_credential"),
        ("SELECT 1 FROM other.agentflow_shared_note", "no other schema"),
        ("SELECT 1 FROM `other`.`agentflow_shared_note`", "no other schema"),
        ("SELECT * FROM pragma_table_info('app')", "pragma_table_info"),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", "outfile"),
        ("SELECT id FROM agentflow_shared_note", "must hold `app_id = :app_id`"),
        ("SELECT id FROM AGENTFLOW_SHARED_NOTE", "must hold `app_id = :app_id`"),
        ("SELECT id FROM agentflow_shared_note WHERE app_id = 2 AND agent_name = 'b'", "must hold"),
        ("SELECT id FROM agentflow_shared_note WHERE app_id = :app_id", "must hold `agent_name = :agent_name`"),
        ("SELECT id FROM agentflow_shared_note WHERE :app_id = :app_id AND agent_name = :agent_name", "must hold"),
        (f"SELECT 1 FROM agentflow_shared_note a JOIN agentflow_shared_note b ON a.id = b.id WHERE a.{MINE}",
         "for each of its tables"),
        (f"SELECT id FROM agentflow_shared_note WHERE {MINE} OR 1 = 1", "OR beside"),
        (f"SELECT id FROM agentflow_shared_note WHERE ({MINE}) OR 1 = 1", "must hold"),
        (f"SELECT id FROM agentflow_shared_note WHERE NOT ({MINE})", "must hold"),
        ("SELECT id FROM agentflow_a_own WHERE NOT app_id = :app_id", "must hold"),
        ("SELECT id FROM agentflow_a_own WHERE app_id = :app_id = 0", "must hold"),
        ("SELECT id FROM agentflow_a_own WHERE 0 = app_id = :app_id", "must hold"),
        ("SELECT id FROM agentflow_a_own WHERE app_id = :app_id + 1", "must hold"),
        ("SELECT id FROM agentflow_a_own WHERE id BETWEEN 0 AND app_id = :app_id", "must hold"),
        ("SELECT app_id = :app_id FROM agentflow_a_own", "must hold"),
        ("SELECT id FROM agentflow_a_own WHERE app_id = :app_id || 1", "must hold"),
        ("SELECT id FROM agentflow_a_own WHERE id = 1 || 1 AND app_id = :app_id", "OR beside"),
        ("SELECT id FROM agentflow_a_own WHERE app_id = :app_id UNION SELECT id FROM agentflow_a_own", "must hold"),
        ("SELECT id FROM agentflow_a_own WHERE app_id = :app_id AND id IN (SELECT id FROM agentflow_a_own)",
         "must hold"),
        ("SELECT 1 FROM agentflow_a_own a JOIN agentflow_a_own b ON a.app_id = :app_id AND a.app_id = :app_id",
         "must hold"),
        ("SELECT 1 FROM agentflow_a_own a LEFT JOIN agentflow_a_own b ON a.app_id = :app_id AND b.app_id = :app_id",
         "no outer joins"),
        ("WITH agentflow_a_own AS (SELECT 1) SELECT * FROM agentflow_a_own", "must hold"),
        ("SELECT id FROM (agentflow_a_own) WHERE app_id = :app_id", "must hold"),
        ("agentflow_shared_note.title = 'x'", "must hold"),
        ("DELETE FROM agentflow_shared_note WHERE app_id = :app_id AND agent_name = :agent_name", "only reads"),
        ("UPDATE agentflow_a_own SET app_id = :app_id", "only reads"),
        ("WITH n AS (SELECT 1) DELETE FROM agentflow_a_own WHERE app_id = :app_id", "only reads"),
        ("PRAGMA writable_schema = 1", "only reads"),
        ("SET autocommit = 1", "only reads"),
        ("", "only reads"),
    ],
)  # fmt: skip
def test_a_text_that_could_reach_others_is_refused(text: str, reason: str) -> None:
    whole = text == "" or text.split()[0] in ("SELECT", "WITH", "DELETE", "UPDATE", "PRAGMA", "SET")
    with pytest.raises(ScopeViolation, match=reason):
        raw_sql.read(text, statement=whole)


@pytest.mark.parametrize("text", ["FORCE INDEX (ix_a_b)", "use index for order by (a, b)", "INDEXED BY ix_a"])
def test_hints_about_indexes_pass(text: str) -> None:
    raw_sql.require_hint(text)


@pytest.mark.parametrize(
    "text", ["FORCE INDEX (a), app_credential", "", "JOIN app_credential", "FORCE INDEX (a) x"]
)
def test_other_hints_are_refused(text: str) -> None:
    with pytest.raises(ScopeViolation, match="hints about indexes only"):
        raw_sql.require_hint(text)


@pytest.mark.parametrize("text", ["->", "->>", "<=>", "&", "-", "SOUNDS LIKE", "REGEXP", "div", "%%"])
def test_operators_pass(text: str) -> None:
    raw_sql.require_operator(text)


@pytest.mark.parametrize("text", ["= 1) OR (1 =", "--", "= 1 UNION SELECT", "; x", "/*", "#", "from", "-- "])
def test_more_than_an_operator_is_refused(text: str) -> None:
    with pytest.raises(ScopeViolation, match="no operator"):
        raw_sql.require_operator(text)
