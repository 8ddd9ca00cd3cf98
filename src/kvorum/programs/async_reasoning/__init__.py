"""AsyncReasoning: the answer begins while the thinking goes on."""
