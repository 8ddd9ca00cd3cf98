"""What several programs use: answers, speech, tools."""
