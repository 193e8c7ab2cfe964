"""A study's search: every decision, no process, no clock of its own, no print."""

from mlpspace.search.search import BEHIND, Search, SearchError

__all__ = ["BEHIND", "Search", "SearchError"]
