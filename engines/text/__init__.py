"""Text work that engines share: templates, tokens, answers and their grammars, ranking."""
