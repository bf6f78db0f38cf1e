"""Chat templates: rendered out of this process, and given tools and histories in the form that they take."""
