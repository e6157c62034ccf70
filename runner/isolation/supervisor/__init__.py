"""The process beside a step without namespaces: it starts it, answers for it, and ends what it leaves."""
