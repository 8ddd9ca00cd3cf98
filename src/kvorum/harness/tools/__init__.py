"""Tools: what a model may call (``tool``), how it is called (``call``), how it is told and says so (``call_form``)."""
