"""The backend that runs a model in vLLM's worker processes: tensor and pipeline parallel, on one node or several."""
