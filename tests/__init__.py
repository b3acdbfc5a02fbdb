"""Tests: unit by package, properties, integration over sockets, compatibility with real clients, crashes, and the form of the code."""
