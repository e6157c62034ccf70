"""Go templates as docker's ``--format`` takes them: text to nodes to output.

``parse`` (grammar in template.lark) gives ``nodes``; ``execute`` walks them over plain
JSON-like values; ``functions`` and ``printing`` speak Go's conventions. Imported only when
a ``--format`` asks for a template.

Spec: Go ``text/template``, and the functions that docker adds.
"""
