"""Training over shared views: whole team traces through a model at once, with gradients.

``recording`` notes what an engine's ticks see, ``team_trace`` holds it as distances, ``forward`` computes all ticks of
a batch of such teams in one differentiable pass of the model's own modules.
"""
