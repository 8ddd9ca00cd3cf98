"""Bodies of requests. Those of the OpenAI routes leave unknown fields unread; ours refuse them."""
