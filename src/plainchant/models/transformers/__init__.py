"""The backend for models that transformers loads."""
