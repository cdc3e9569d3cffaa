"""Servers that people have, each started for a test: unpacked, not installed, and in a temporary folder of its own."""
