"""Keep repositories equal to others: rules from a file, a plan, and its performance.

regsync.py, skopeo.py    YAML in either dialect → ``rules.Rule``
plan.py                  rules and what both sides have → steps; pure
perform.py               lists, looks, copies, deletes: the only place with effects
report.py                what was done, as a table and as JSON
schedule.py              when a rule is due
"""
