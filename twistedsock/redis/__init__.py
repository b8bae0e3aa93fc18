"""The backplane that connects several servers through Redis or Valkey."""
