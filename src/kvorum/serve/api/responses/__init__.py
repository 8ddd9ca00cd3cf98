"""OpenAI's Responses: a conversation that goes on from the id of its last reply (docs/serve-responses.md)."""
