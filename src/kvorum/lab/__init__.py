"""The lab: studies of teams against controls, their statistics, and reports. Needs the packages of the extra ``lab``,
which are imported when they are first needed."""

from functools import partial

from kvorum import errors

need = partial(errors.need, who="`kvorum study`", extra="lab")
"""Imports a package of the extra."""
