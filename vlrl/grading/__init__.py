"""Pure judges: a gold answer and an answer in, a judgement out. Nothing here knows of tasks."""
