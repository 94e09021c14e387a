"""What functions call on AWS, recorded while they work, and held against what their roles grant.

`recorder/` is put into the functions and notes their calls; `calls` reads what it noted; `roles` reads what is granted;
`watched` is the local stack that does both and fails when it is stopped; `drive/` makes every function use its grants.
"""
