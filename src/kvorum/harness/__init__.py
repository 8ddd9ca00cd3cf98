"""What several programs use: answers and JSON objects, talk between workers, writing alone, tools."""
