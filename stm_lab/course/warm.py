"""Imported once by the process that a sweep's runs are forked from, so that none of them imports it again."""

import gc

import nbformat
from nbconvert import HTMLExporter

import stm_lab.course.execute  # noqa: F401

HTMLExporter().from_notebook_node(nbformat.v4.new_notebook())  # reads its templates
gc.collect()
gc.freeze()  # a run's garbage collection need not look at all this, nor copy the pages that it lies on
