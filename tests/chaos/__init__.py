"""A real search, killed again and again: what comes of it is what an undisturbed one comes to.

    pytest tests/chaos -m chaos                      once, some minutes
    pytest tests/chaos -m chaos --chaos-minutes 60   again and again with new random seeds
    pytest tests/chaos -m chaos --chaos-seed 12      the instants of a run that failed

The command runs as a user would type it, in a process group of its own. What it trained is told by a witness beside it
(`witness/sitecustomize.py`), not by its ledger; what its ledger holds is read here with plain SQL.
"""
