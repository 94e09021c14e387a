"""Makes every function use each of its grants, one room for each kind of work; `world` is what they work with.

Nothing is done twice for one function: what the walkthrough makes it do is left out here. A grant that nobody needs any
more is found by tests/e2e/test_least_privilege.py, with the function's name.
"""
