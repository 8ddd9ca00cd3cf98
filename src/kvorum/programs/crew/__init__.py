"""Crews: workers whose roles, tools and protocol stand in one YAML file (``harness/crew_files``)."""
