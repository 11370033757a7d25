"""Pure judges: a gold answer and a response's text in, a Verdict out. Nothing here knows of tasks."""
