"""The engine: groups of queries with their keys, compiled and executed exactly. Knows no method."""
