"""Downloads models from Hugging Face and ModelScope."""
