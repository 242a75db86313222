"""For tools that expect this file; everything is said in pyproject.toml."""

from setuptools import setup

setup()
