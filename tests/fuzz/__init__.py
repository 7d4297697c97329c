"""Fuzz targets, which no test run collects: see the docstring of each."""
