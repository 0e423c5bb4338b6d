"""`:- use_module(library(byssus)).` of ProbLog, which runs this file for each program anew."""

from byssus_problog.blackboxes import load

load()
